//! dhow-testkit
