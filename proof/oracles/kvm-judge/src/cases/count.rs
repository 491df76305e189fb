//! The count of cases, and how their outcomes are reported.

use doorbell_facts::{CheckFact, Fact};
use kvm_judge::Failure;

/// Prints a fact: its line may be longer than one of an image.
pub(super) fn tell(fact: impl Into<Fact>) {
    println!("{}", serde_json::to_string(&fact.into()).expect("text and numbers"));
}

/// Outcomes so far.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
}

impl Count {
    /// Reports and counts a case.
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

/// Fails unless the outcome is good.
pub(super) fn accept(good: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(otherwise().into()) }
}
