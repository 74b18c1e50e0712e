"""Evergreen's orchestration: the only code that imports prefect, mlflow and dvc."""
