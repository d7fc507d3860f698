//! bench
use crate::sh::Result;
/// Runs the task.
pub fn main(_args: &[String]) -> Result {
    Ok(())
}
