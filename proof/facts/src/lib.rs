//! Facts that images and guests report on their consoles for suites to judge.
//!
//! A fact is one line with a JSON object that has a single key, which names either the reporting
//! program or a kind of fact that several programs report. All other console lines are meant for
//! people, and suites must not parse them. The reporting program and the suite use the same types,
//! so if a program changes a fact, its suite doesn't compile until it changes too. The exceptions
//! are [`LinuxFact`] and, under Linux and ArceOS, [`WatchedFact`], which shell scripts and a
//! program outside this workspace write, and [`MinimalFact::Ticked`], which a kernel without a heap
//! stores as text.
//!
//! ```
//! use doorbell_facts::{Fact, MicrobenchFact};
//!
//! let fact = Fact::from(MicrobenchFact::Woken { times: 12 });
//! let line = fact.to_string();
//! assert_eq!(line, r#"{"microbench":{"woken":{"times":12}}}"#);
//! assert_eq!(Fact::parse(&line), Some(fact));
//! assert_eq!(Fact::parse("Bus error"), None);
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod checks;
mod hostile;
mod hypervisor;
mod linux;
mod programs;

pub use checks::CheckFact;
pub use hostile::{HostileFact, Means};
pub use hypervisor::{Access, Ending, HypervisorFact};
pub use linux::LinuxFact;
pub use programs::{JudgeFact, MicrobenchFact, MinimalFact, StrayDmaFact, WatchedFact};

use alloc::borrow::Cow;
use core::fmt::{self, Display, Formatter};
use serde::{Deserialize, Serialize};

/// The text of a fact, which is either a constant in the program or formatted text.
pub type Text = Cow<'static, str>;

/// Maximum line length in bytes. Longer lines are not written.
const LONGEST: usize = 1024;

/// A fact, with one variant per reporting program.
///
/// `Display` writes the fact as one line, without a line break and without allocating. Formatting
/// fails if the line is longer than 1 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Fact from the hypervisor.
    Hypervisor(HypervisorFact),
    /// Fact from a Linux guest's first process.
    Linux(LinuxFact),
    /// Fact from the guest that attacks its hypervisor, or that measures the hypervisor under
    /// attack.
    Hostile(HostileFact),
    /// Fact from the guest whose device accesses memory that doesn't belong to the guest.
    StrayDma(StrayDmaFact),
    /// Fact from the guest that measures its own operations.
    Microbench(MicrobenchFact),
    /// Fact from a program that performs checks: the test bench, or KVM's judge.
    Checks(CheckFact),
    /// Fact from a guest whose instructions are logged: the test bench, or Linux.
    Watched(WatchedFact),
    /// Fact from one of the smallest kernels.
    Minimal(MinimalFact),
    /// Fact from KVM's judge.
    Judge(JudgeFact),
}

impl Fact {
    /// Parses a console line. Returns `None` if the line is not a fact.
    #[cfg(feature = "parse")]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end();
        if line.starts_with('{') { serde_json::from_str(line).ok() } else { None }
    }
}

impl Display for Fact {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut line = [0; LONGEST];
        let bytes = serde_json_core::to_slice(self, &mut line).map_err(|_| fmt::Error)?;
        f.write_str(str::from_utf8(&line[..bytes]).map_err(|_| fmt::Error)?)
    }
}

macro_rules! facts_of {
    ($($program:ident: $fact:ident),* $(,)?) => {
        $(impl From<$fact> for Fact {
            fn from(fact: $fact) -> Self {
                Self::$program(fact)
            }
        })*
    };
}

facts_of! {
    Hypervisor: HypervisorFact,
    Linux: LinuxFact,
    Hostile: HostileFact,
    StrayDma: StrayDmaFact,
    Microbench: MicrobenchFact,
    Checks: CheckFact,
    Watched: WatchedFact,
    Minimal: MinimalFact,
    Judge: JudgeFact,
}

#[cfg(all(test, feature = "parse"))]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_fact_is_one_line_under_its_program() {
        let changed = |now| HostileFact::Changed { register: "S3".into(), first: 0, now };
        let quoted = "a \"quoted\"\nbreak".into();
        for (fact, line) in [
            (
                Fact::from(HypervisorFact::Ended { guest: 1, how: Ending::Off }),
                r#"{"hypervisor":{"ended":{"guest":1,"how":"off"}}}"#,
            ),
            (
                StrayDmaFact::AfterOutside { completes: false }.into(),
                r#"{"stray-dma":{"after-outside":{"completes":false}}}"#,
            ),
            (
                LinuxFact::Heard { text: quoted, again: false }.into(),
                r#"{"linux":{"heard":{"text":"a \"quoted\"\nbreak","again":false}}}"#,
            ),
            (
                changed(None).into(),
                r#"{"hostile":{"changed":{"register":"S3","first":0,"now":null}}}"#,
            ),
            (
                changed(Some(u64::MAX)).into(),
                r#"{"hostile":{"changed":{"register":"S3","first":0,"now":18446744073709551615}}}"#,
            ),
        ] {
            assert_eq!(fact.to_string(), line);
            // A terminal ends its lines with a carriage return.
            assert_eq!(Fact::parse(&(line.to_string() + "\r\n")), Some(fact));
        }
    }

    #[test]
    fn lines_that_are_not_facts_are_not_parsed() {
        for line in ["", "Bus error", "{", "{}", "[1]", r#"{"nobody":{"cpus":2}}"#, "{ echo; }"] {
            assert_eq!(Fact::parse(line), None, "{line}");
        }
    }
}
