"""What every online store of ours shares: statuses, values, the clock of reads, errors."""
