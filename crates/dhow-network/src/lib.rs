//! dhow-network
