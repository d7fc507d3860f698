//! dhow-logs
