//! Places of findings without their addresses, and fingerprints of findings.
//!
//! A node's unit address and a structure's offset change when a device moves or a table grows. A
//! place without them, such as `/soc/its` for `/soc@0/its@8080000` or `MADT` for `MADT+0x194`,
//! stays the same.

use gic_firmware::{Finding, Origin};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;

/// Returns a place without unit addresses and offsets.
pub fn without_addresses(place: &str) -> String {
    place.split('/').map(name).collect::<Vec<_>>().join("/")
}

/// Returns a path component without its unit address or offset.
fn name(component: &str) -> &str {
    let end = component.find('@').or_else(|| component.find("+0x"));
    end.and_then(|end| component.get(..end)).unwrap_or(component)
}

/// Returns `true` if `pattern` names `place`. A component of the pattern without an address matches
/// any address.
pub fn names(pattern: &str, place: &str) -> bool {
    let (mut wanted, mut there) = (pattern.split('/'), place.split('/'));
    loop {
        match (wanted.next(), there.next()) {
            (None, None) => return true,
            (Some(wanted), Some(there)) if wanted == there || wanted == name(there) => {}
            _ => return false,
        }
    }
}

/// Splits a place as printed into the node or structure, and the property or field.
pub fn split(printed: &str) -> (&str, &str) {
    printed.split_once(": ").unwrap_or((printed, ""))
}

/// Returns the part of a fingerprint that all findings of a rule at a property share, even if the
/// property's node moves.
pub fn shared_part(rule: &str, place: &str, item: &str) -> String {
    let mut hash = Sha256::new();
    for part in [rule, &without_addresses(place), item] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut part = String::new();
    for byte in hash.finalize().iter().take(8) {
        let _ = write!(part, "{byte:02x}");
    }
    part
}

/// Returns the fingerprint of each of a source's findings: the shared part, and the number of the
/// finding among those with the same shared part. The number makes the fingerprints distinct.
///
/// Neither addresses nor messages are part of a fingerprint: a message states INTIDs and other
/// nodes, and a later version may word it differently.
pub fn fingerprints<'f>(findings: impl Iterator<Item = &'f Finding>) -> Vec<String> {
    let mut counts = HashMap::<String, usize>::new();
    findings
        .map(|finding| {
            let place = finding.origin.place().unwrap_or_default();
            let part = shared_part(finding.rule.name(), place, finding.origin.item());
            let count = counts.entry(part.clone()).or_default();
            *count += 1;
            format!("{part}:{count}")
        })
        .collect()
}

/// Creates the origin of a whole node or structure.
pub fn origin(place: &str) -> Origin {
    Origin::new(place.into(), "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gic_firmware::Rule;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// A node's path: names, each with or without a unit address.
    fn path() -> impl Strategy<Value = Vec<(String, Option<u32>)>> {
        prop::collection::vec(("[a-z][a-z0-9,._+-]{0,8}", any::<Option<u32>>()), 1..5)
    }

    fn spelled(path: &[(String, Option<u32>)], moved_by: u32) -> String {
        let component = |(name, address): &(String, Option<u32>)| match address {
            Some(address) => format!("/{name}@{:x}", address.wrapping_add(moved_by)),
            None => format!("/{name}"),
        };
        path.iter().map(component).collect()
    }

    fn finding(rule: usize, place: &str, item: &'static str, message: String) -> Finding {
        let rule = Rule::ALL[rule % Rule::ALL.len()];
        Finding { rule, origin: Origin::new(place.into(), item), message }
    }

    const ITEMS: [&str; 4] = ["", "reg", "msi-map", "interrupts"];

    proptest! {
        #[test]
        fn a_moved_address_keeps_every_fingerprint(
            found in prop::collection::vec((0_usize..9, path(), 0_usize..4, any::<u32>()), 0..20),
            by in any::<u32>(),
        ) {
            let of = |moved_by: u32| {
                let findings: Vec<_> = found.iter().map(|(rule, path, item, intid)| {
                    let message = format!("INTID {}", intid.wrapping_add(moved_by));
                    finding(*rule, &spelled(path, moved_by), ITEMS[*item], message)
                }).collect();
                fingerprints(findings.iter())
            };
            prop_assert_eq!(of(0), of(by));
        }

        #[test]
        fn distinct_findings_have_distinct_fingerprints(
            found in prop::collection::vec((0_usize..3, path(), 0_usize..4), 0..40),
            copies in 1_usize..3,
        ) {
            let findings: Vec<_> = found.iter().cycle().take(found.len() * copies).map(
                |(rule, path, item)| finding(*rule, &spelled(path, 0), ITEMS[*item], String::new())
            ).collect();
            let all = fingerprints(findings.iter());
            prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), findings.len());
            for (one, left) in findings.iter().zip(&all) {
                for (other, right) in findings.iter().zip(&all) {
                    let key = |of: &Finding| (of.rule, of.origin.item(),
                        without_addresses(of.origin.place().unwrap_or_default()));
                    let shared = |of: &String| of.split(':').next().map(str::to_owned);
                    prop_assert_eq!(key(one) == key(other), shared(left) == shared(right));
                }
            }
        }

        #[test]
        fn a_pattern_matches_a_place_with_and_without_addresses(path in path()) {
            let place = spelled(&path, 0);
            prop_assert!(names(&place, &place));
            prop_assert!(names(&without_addresses(&place), &place));
            let below = place.clone() + "/more";
            prop_assert!(!names(&below, &place) && !names(&place, &below));
        }
    }

    #[test]
    fn a_pattern_with_an_address_matches_only_that_address() {
        assert!(names("/soc/its@8000", "/soc@0/its@8000"));
        assert!(!names("/soc/its@8000", "/soc@0/its@9000"));
        assert!(names("MADT", "MADT+0x2c"));
        assert!(!names("MADT+0x2c", "MADT+0x2d"));
    }
}
