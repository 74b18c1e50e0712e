-- beside the database `mlflow`, which the image makes: Prefect's, with the extension that its search wants
CREATE DATABASE prefect OWNER evergreen;
\connect prefect
CREATE EXTENSION IF NOT EXISTS pg_trgm;
