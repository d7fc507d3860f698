//! dhow-monitor
