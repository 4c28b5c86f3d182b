//! Where events go: NDJSON on stdout, a record file.
