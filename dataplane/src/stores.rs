//! The stores of the data plane: catalog (PostgreSQL), index (OpenSearch), archive (S3).
