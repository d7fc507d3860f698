//! What `run` and the verbs on containers do.

mod confinement;
mod environment;
mod exec;
mod files;
mod identity;
mod limits;
mod listing;
mod logs;
mod run;
mod signals;
mod states;
mod terminal;
