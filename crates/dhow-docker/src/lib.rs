//! dhow-docker
