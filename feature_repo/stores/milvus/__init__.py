"""Feast online store on Milvus, searchable."""
