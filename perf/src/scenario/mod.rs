//! Scenarios: who connects, who publishes to whom, in which phases.
//!
//! [`fleet`] is what happens on the connections (one flat handler for all scenarios), [`run`] drives them.

pub mod fleet;
mod run;

pub use run::run;
