"""A DAG for Airflow 3 that brings a Headwater run up to the day, every night.

Airflow variables: `headwater_home` (the checkout), `headwater_run` (the run, relative to it). `refresh` makes all
missing days in order by itself, so that one task a night is enough and past nights are not caught up.
"""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Variable

HOME, RUN = Variable.get("headwater_home"), Variable.get("headwater_run", default="runs/demo")
COMMAND = "cd {{ params.home }} && .venv/bin/headwater"
REFRESH = "refresh --run {{ params.run }} --as-of {{ dag_run.run_after | ds }} --quiet --json"
STATUS = "status --run {{ params.run }} --json"

with DAG(
    dag_id="headwater_refresh",
    schedule="30 2 * * *",
    start_date=pendulum.datetime(2024, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={"home": HOME, "run": RUN},
    default_args={"retries": 4, "retry_delay": pendulum.duration(minutes=30), "owner": "headwater"},
    tags=["headwater", "embeddings"],
) as dag:
    # Exit code 2 says that the day's data is not complete yet: the retries wait for it.
    refresh = BashOperator(
        task_id="refresh",
        bash_command=f"{COMMAND} {REFRESH}",
        execution_timeout=pendulum.duration(hours=6),
    )
    status = BashOperator(
        task_id="status",
        bash_command=f"{COMMAND} {STATUS}",
        retries=0,
    )
    # A teardown: it runs after a refused night too, and does not make a success of it.
    refresh >> status.as_teardown()
