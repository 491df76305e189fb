//! Removes findings that follow from another finding, so that a mistake is reported once.

use crate::finding::{Finding, Rule};
use alloc::vec::Vec;

/// A kind of finding that makes other findings redundant.
struct Cause {
    rule: Rule,
    /// Prefix of the cause's place; empty for any place.
    place: &'static str,
    /// Rules whose findings are removed, each with a prefix of the symptom's place.
    symptoms: &'static [(Rule, &'static str)],
}

/// Symptoms of a partially read MADT.
const PART_OF_MADT: &[(Rule, &str)] = &[
    (Rule::UnknownIts, ""),
    (Rule::TooFewRedistributors, ""),
    (Rule::GiccRedistributor, ""),
    (Rule::NoUsableCpu, ""),
    (Rule::HostWithoutMsi, ""),
    (Rule::MissingProperty, "MADT+0x0"),
];
/// Symptoms of a partially read IORT.
const PART_OF_IORT: &[(Rule, &str)] = &[
    (Rule::IortReference, ""),
    (Rule::UnknownSegment, ""),
    (Rule::HostWithoutMsi, ""),
    (Rule::UncoveredBus, ""),
    (Rule::UnmappedFunctions, ""),
    (Rule::RmrTarget, ""),
    (Rule::ComponentWithoutIts, ""),
    (Rule::SmmuWithoutIts, ""),
    (Rule::UnmappedStream, ""),
    (Rule::SmmuWithoutInterrupts, ""),
];

const CAUSES: &[Cause] = &[
    Cause {
        rule: Rule::SharedSegment,
        place: "MCFG",
        symptoms: &[(Rule::SharedDeviceId, ""), (Rule::SharedStreamId, "")],
    },
    Cause {
        rule: Rule::MapRange,
        place: "IORT",
        symptoms: &[(Rule::UncoveredBus, ""), (Rule::UnmappedFunctions, "")],
    },
    Cause { rule: Rule::TableLength, place: "MADT", symptoms: PART_OF_MADT },
    Cause { rule: Rule::TableLength, place: "MADT", symptoms: &[(Rule::MalformedTable, "MADT")] },
    Cause { rule: Rule::TableLength, place: "MADT", symptoms: &[(Rule::TableChecksum, "MADT")] },
    Cause { rule: Rule::TableLength, place: "IORT", symptoms: PART_OF_IORT },
    Cause { rule: Rule::TableLength, place: "IORT", symptoms: &[(Rule::TableChecksum, "IORT")] },
    Cause { rule: Rule::TableLength, place: "MCFG", symptoms: &[(Rule::TableChecksum, "MCFG")] },
    Cause { rule: Rule::TableLength, place: "MCFG", symptoms: &[(Rule::UnknownSegment, "")] },
    Cause { rule: Rule::TableLength, place: "MCFG", symptoms: &[(Rule::MalformedTable, "MCFG")] },
    Cause { rule: Rule::MalformedTable, place: "MADT", symptoms: PART_OF_MADT },
    Cause { rule: Rule::MalformedTable, place: "IORT", symptoms: PART_OF_IORT },
    Cause { rule: Rule::IortNodeCount, place: "", symptoms: PART_OF_IORT },
    Cause { rule: Rule::IortNodeCount, place: "", symptoms: &[(Rule::MalformedTable, "IORT")] },
    Cause { rule: Rule::UnknownSegment, place: "", symptoms: &[(Rule::HostWithoutMsi, "")] },
    Cause { rule: Rule::UnknownSegment, place: "", symptoms: &[(Rule::DuplicateId, "IORT")] },
    Cause {
        rule: Rule::SmmuWithoutIts,
        place: "",
        symptoms: &[
            (Rule::UncoveredBus, ""),
            (Rule::UnmappedFunctions, ""),
            (Rule::HostWithoutMsi, ""),
        ],
    },
    Cause {
        rule: Rule::UnmappedStream,
        place: "",
        symptoms: &[
            (Rule::UncoveredBus, ""),
            (Rule::UnmappedFunctions, ""),
            (Rule::HostWithoutMsi, ""),
        ],
    },
    Cause { rule: Rule::IortReference, place: "", symptoms: &[(Rule::HostWithoutMsi, "")] },
    Cause {
        rule: Rule::GiccRedistributor,
        place: "",
        symptoms: &[(Rule::TooFewRedistributors, "")],
    },
    Cause { rule: Rule::GicdVersion, place: "", symptoms: &[(Rule::TooFewRedistributors, "")] },
    Cause { rule: Rule::NoUsableCpu, place: "", symptoms: &[(Rule::TooFewRedistributors, "")] },
    Cause { rule: Rule::SmmuWithoutInterrupts, place: "", symptoms: &[(Rule::SingleMapping, "")] },
];

/// Removes the symptoms of the causes in `findings`.
pub(super) fn remove(findings: &mut Vec<Finding>) {
    let starts = |finding: &Finding, place: &str| {
        finding.origin.place().is_some_and(|at| at.starts_with(place))
    };
    let present: Vec<&Cause> = CAUSES
        .iter()
        .filter(|cause| {
            findings.iter().any(|one| one.rule == cause.rule && starts(one, cause.place))
        })
        .collect();
    findings.retain(|finding| {
        let follows = |cause: &&Cause| {
            cause.rule != finding.rule
                && cause.symptoms.iter().any(|(rule, place)| {
                    *rule == finding.rule && (place.is_empty() || starts(finding, place))
                })
        };
        !present.iter().any(follows)
    });
}
