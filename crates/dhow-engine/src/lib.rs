//! dhow-engine
