//! placeholder
use crate::machine::Machine;
use crate::report::Report;
pub(super) fn run(_machine: &'static Machine, _report: &mut Report) {}
