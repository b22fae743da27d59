"""KuaiRand-Pure: impressions with clicks and graded feedback on a short-video app, 14 days."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from trainers.data.adapters.adapter import AdapterOptions
from trainers.data.connection import connect, literal, moment
from trainers.data.dataset import Attribute, DatasetSpec, Task, Window
from trainers.data.ingest import Progress
from trainers.data.raw_days import EVENT_TABLES, stage_events

IMPRESSION = (
    "A video shown to a user on one of 15 surfaces (`tab`) of the app. Exact duplicate rows get one impression_id, so "
    "that ingestion sets the repetitions aside."
)
CLICK = "A tap on the video; on surfaces that play at once, at least 7 seconds or the whole video watched."
CONVERSION = (
    "None that arrives later: like, follow, profile entry and the other feedback carry the time of their impression. "
    "Likes given a click stand in for conversions."
)

_FILES = ("events.parquet", "items.parquet", "users.parquet", "user_history_before_window.parquet")
_LABELS = {
    "click": "is_click",
    "long_view": "long_view",
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "profile_enter": "is_profile_enter",
    "hate": "is_hate",
}
_USER_TEXTS = (
    "user_active_degree",
    "follow_user_num_range",
    "fans_user_num_range",
    "friend_user_num_range",
    "register_days_range",
)
_USER_FLAGS = ("is_live_streamer", "is_video_author", *(f"onehot_feat{n}" for n in range(18)))
_USER_COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_HISTORIES = {"watched": "watch_seq", "long_view": "long_watch_seq", "like": "like_seq"}
_MISSING_FLAG = -124
_LOG_START = datetime(2022, 4, 24, 15, tzinfo=UTC)


def _local_midnight(month: int, day: int) -> datetime:
    """Start of a calendar day of 2022 in UTC+8, where the users live."""
    return datetime.fromisoformat(f"2022-{month:02}-{day:02}T00:00:00+08:00").astimezone(UTC)


class KuaiRand:
    __doc__ = f"""KuaiRand-Pure from a folder of parquet files.

    Impression: {IMPRESSION}
    Click: {CLICK}
    Conversion: {CONVERSION}

    Times come from `time_ms` alone, as the file's `date` and `hourmin` disagree with it. Data days are calendar days of
    UTC+8, so cut-offs fall on 16:00 UTC. User and item tables carry no time and are taken to hold from the start of
    the log. The per-item statistics of the release average the whole month, the future included; they are never read.
    """

    name = "kuairand"

    def spec(self, options: AdapterOptions) -> DatasetSpec:  # noqa: ARG002
        """Declaration of the dataset: train 27 April to 5 May, test 6 to 8 May 2022."""
        return DatasetSpec(
            name=self.name,
            title="KuaiRand-Pure, 14 days",
            license="CC BY-SA 4.0",
            citation="Gao et al., KuaiRand, CIKM 2022, doi 10.1145/3511808.3557624",
            impression=IMPRESSION,
            click=CLICK,
            conversion=CONVERSION,
            labels=tuple(_LABELS),
            tasks=(
                Task(name="click", label="click", domain="engagement"),
                Task(name="long_view", label="long_view", domain="engagement"),
                Task(name="like", label="like", domain="conversion", given="click"),
                Task(name="profile_enter", label="profile_enter", domain="conversion", given="click"),
                Task(name="follow", label="follow", domain="conversion", given="click"),
            ),
            ctr_task="click",
            cvr_task="like",
            user_attributes=(
                *(Attribute(name=name, kind="categorical") for name in _USER_TEXTS),
                *(Attribute(name=name, kind="categorical", type="int64") for name in _USER_FLAGS),
                *(Attribute(name=name, kind="dense", type="float") for name in _USER_COUNTS),
            ),
            pin_attributes=(
                Attribute(name="author_id", kind="categorical", type="int64"),
                Attribute(name="music_id", kind="categorical", type="int64"),
                Attribute(name="video_type", kind="categorical"),
                Attribute(name="upload_type", kind="categorical"),
                Attribute(name="tag", kind="multi_valued", type="int64"),
                Attribute(name="video_duration", kind="dense", type="float"),
                Attribute(name="upload_day", kind="dense", type="float"),
            ),
            histories=tuple(_HISTORIES),
            window=Window(
                features_from=_local_midnight(4, 25),
                train_from=_local_midnight(4, 27),
                test_from=_local_midnight(5, 6),
                until=_local_midnight(5, 9),
            ),
            publish_delay_minutes=30,
            quarantine_share=0.03,
        )

    def stage(self, staging: Path, options: AdapterOptions, progress: Progress) -> None:
        """Write impressions, users, Pins, and the histories of videos watched, watched long, and liked."""
        folder = options.required_path(self.name, _FILES)
        queries = {
            "impressions": _impressions(folder, options),
            "users": _users(folder, options),
            "pins": _pins(folder),
            **{f"history_{name}": _history(folder, options, column) for name, column in _HISTORIES.items()},
        }
        with connect(temp=staging / "spill") as connection:
            for done, (table, query) in enumerate(queries.items()):
                progress(f"staging {table}", done / len(queries))
                since = options.since if table in EVENT_TABLES else None
                stage_events(connection, query, staging, table, since)


def _impressions(folder: Path, options: AdapterOptions) -> str:
    labels = ", ".join(f"{source} AS {label}" for label, source in _LABELS.items())
    identity = "concat_ws(':', user_id, video_id, time_ms, tab)"
    return (
        f"SELECT (md5_number_lower({identity}) >> 1)::BIGINT AS impression_id, user_id::BIGINT AS user_id, "
        f"video_id::BIGINT AS pin_id, tab::VARCHAR AS surface, {_utc('time_ms')} AS event_timestamp, {labels} "
        f"FROM {literal(folder / 'events.parquet')} WHERE {options.keeps('user_id')}"
    )


def _users(folder: Path, options: AdapterOptions) -> str:
    flags = ", ".join(f"nullif({name}::BIGINT, {_MISSING_FLAG}) AS {name}" for name in _USER_FLAGS)
    return (
        f"SELECT user_id, {moment(_LOG_START)} AS event_timestamp, {', '.join((*_USER_TEXTS, *_USER_COUNTS))}, {flags} "
        f"FROM {literal(folder / 'users.parquet')} WHERE {options.keeps('user_id')}"
    )


def _pins(folder: Path) -> str:
    return (
        f"SELECT video_id AS pin_id, {moment(_LOG_START)} AS event_timestamp, author_id, music_id, video_type, "
        "upload_type, string_split(tag, ',')::BIGINT[] AS tag, video_duration, "
        f"epoch(upload_dt::DATE) / 86400 AS upload_day FROM {literal(folder / 'items.parquet')}"
    )


def _history(folder: Path, options: AdapterOptions, column: str) -> str:
    """Up to 50 videos, oldest first, usable once the last was watched and not before the log starts.

    Histories of 565 users reach up to 47 minutes into the log, so the start of the log alone would leak.
    """
    return (
        f"SELECT user_id, greatest({_utc('last_time_ms')}, {moment(_LOG_START)}) AS event_timestamp, "
        f"{column} AS pin_ids FROM {literal(folder / 'user_history_before_window.parquet')} "
        f"WHERE {options.keeps('user_id')}"
    )


def _utc(milliseconds: str) -> str:
    return f"make_timestamp({milliseconds} * 1000) AT TIME ZONE 'UTC'"
