//! dhow-dockerfile
