//! Counts the cases and prints their outcomes.

use doorbell_facts::{CheckFact, Fact};
use kvm_judge::Failure;

/// Prints a fact. The fact's line may be longer than the lines that images print.
pub(super) fn tell(fact: impl Into<Fact>) {
    println!("{}", serde_json::to_string(&fact.into()).expect("facts consist of text and numbers"));
}

/// Numbers of outcomes so far.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
}

impl Count {
    /// Reports a case and counts it.
    pub(super) fn case(&mut self, name: &str, outcome: Result<(), Failure>) {
        let check = name.to_owned().into();
        tell(match outcome {
            Ok(()) => {
                self.passed += 1;
                CheckFact::Passed { check }
            }
            Err(error) => {
                self.failed += 1;
                CheckFact::Failed { check, why: error.to_string().into() }
            }
        });
    }
}

/// Returns an error unless the outcome is a success.
pub(super) fn accept(good: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(otherwise().into()) }
}
