//! Removes findings that follow from another finding, so that a mistake is reported once.

use crate::finding::{Finding, Rule};
use alloc::vec::Vec;

/// A kind of finding that makes other findings redundant: its rule, a prefix of its place, which is
/// empty for any place, and the rules whose findings are removed, each with a prefix of the
/// symptom's place.
type Cause = (Rule, &'static str, &'static [(Rule, &'static str)]);

/// Symptoms of a map that is not read to its end.
const UNCOVERED: &[(Rule, &str)] = &[(Rule::UncoveredBus, ""), (Rule::UnmappedFunctions, "")];
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
    (Rule::SharedSegment, "MCFG", &[(Rule::SharedDeviceId, ""), (Rule::SharedStreamId, "")]),
    (Rule::MapRange, "IORT", UNCOVERED),
    (Rule::TableLength, "MADT", PART_OF_MADT),
    (Rule::TableLength, "MADT", &[(Rule::MalformedTable, "MADT"), (Rule::TableChecksum, "MADT")]),
    (Rule::TableLength, "IORT", PART_OF_IORT),
    (Rule::TableLength, "IORT", &[(Rule::TableChecksum, "IORT")]),
    (Rule::TableLength, "MCFG", &[(Rule::TableChecksum, "MCFG"), (Rule::UnknownSegment, "")]),
    (Rule::TableLength, "MCFG", &[(Rule::MalformedTable, "MCFG")]),
    (Rule::MalformedTable, "MADT", PART_OF_MADT),
    (Rule::MalformedTable, "IORT", PART_OF_IORT),
    (Rule::IortNodeCount, "", PART_OF_IORT),
    (Rule::IortNodeCount, "", &[(Rule::MalformedTable, "IORT")]),
    (Rule::UnknownSegment, "", &[(Rule::HostWithoutMsi, ""), (Rule::DuplicateId, "IORT")]),
    (Rule::SmmuWithoutIts, "", UNCOVERED),
    (Rule::SmmuWithoutIts, "", &[(Rule::HostWithoutMsi, "")]),
    (Rule::UnmappedStream, "", UNCOVERED),
    (Rule::UnmappedStream, "", &[(Rule::HostWithoutMsi, "")]),
    (Rule::IortReference, "", &[(Rule::HostWithoutMsi, "")]),
    (Rule::GiccRedistributor, "", &[(Rule::TooFewRedistributors, "")]),
    (Rule::GicdVersion, "", &[(Rule::TooFewRedistributors, "")]),
    (Rule::NoUsableCpu, "", &[(Rule::TooFewRedistributors, "")]),
    (Rule::SmmuWithoutInterrupts, "", &[(Rule::SingleMapping, "")]),
];

/// Removes the symptoms of the causes in `findings`.
pub(super) fn remove(findings: &mut Vec<Finding>) {
    let starts = |finding: &Finding, place: &str| {
        finding.origin.place().is_some_and(|at| at.starts_with(place))
    };
    let present: Vec<&Cause> = CAUSES
        .iter()
        .filter(|(rule, place, _)| {
            findings.iter().any(|one| one.rule == *rule && starts(one, place))
        })
        .collect();
    findings.retain(|finding| {
        let follows = |(cause, _, symptoms): &&Cause| {
            *cause != finding.rule
                && symptoms.iter().any(|(rule, place)| {
                    *rule == finding.rule && (place.is_empty() || starts(finding, place))
                })
        };
        !present.iter().any(follows)
    });
}
