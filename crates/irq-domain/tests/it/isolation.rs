//! Compares isolation groups with IOMMU groups of Linux.

use crate::enumeration::{Registers, Tree, found};
use irq_domain::pci::{Function, Isolation, enable_acs, extended_capability, isolation_groups};
use msi_types::RequesterId;
use msi_types::pci::PciRequester;
use proptest::prelude::*;

const ROOT: Option<u16> = Some(4);
/// Source validation, request and completion redirect, upstream forwarding.
const ALL: u16 = 0x1d;

/// Creates a function with this port type, or a conventional one. `acs` are its capable and its
/// enabled services.
fn function(port: Option<u16>, acs: Option<(u16, u16)>, multifunction: bool) -> Registers {
    let mut new = Registers::endpoint(&[]);
    new.bytes[0x0e] = u8::from(multifunction) << 7;
    new.set_port(port);
    // Another extended capability precedes ACS.
    new.set(0x100, 0x1401_0001);
    if let Some((capable, enabled)) = acs {
        new.set(0x140, 0x0001_000d);
        new.set(0x144, u32::from(enabled) << 16 | u32::from(capable));
        new.allow(0x144, 0xffff_0000);
    }
    new
}

/// Enumerates the only function of a machine.
fn alone(registers: Registers) -> Function {
    found(Tree::default().with(0, 0x08, registers), &[]).0.remove(0)
}

fn id(bus: u8, device: u8, function: u8) -> RequesterId {
    RequesterId::pci(bus, device, function)
}

/// Returns `true` if a function isolates itself.
fn redirects(port: Option<u16>, acs: Option<(u16, u16)>, multifunction: bool) -> bool {
    alone(function(port, acs, multifunction)).isolation().redirects
}

/// The cases of `pci_acs_enabled` (drivers/pci/pci.c): for each port type whether it isolates
/// without ACS as the only function, without ACS as one of several, and with ACS.
#[test]
fn the_port_type_determines_whether_acs_is_required() {
    let (endpoint, port, never) = ([true, false, true], [false, false, true], [false; 3]);
    // Endpoint, legacy endpoint, root, upstream and downstream port, both bridges, integrated
    // endpoint, event collector (PCI Express Base §7.5.3.2).
    let types = [(0, endpoint), (1, endpoint), (4, port), (5, endpoint), (6, port)];
    let types = types.into_iter().chain([(7, never), (8, never), (9, endpoint), (10, never)]);
    let express = types.map(|(number, expected)| (Some(number), expected));
    for (port, expected) in express.chain([(None, never)]) {
        let acs = Some((ALL, ALL));
        let found = [(None, false), (None, true), (acs, true)];
        let found = found.map(|(acs, multifunction)| redirects(port, acs, multifunction));
        assert_eq!(found, expected, "{port:?}");
    }
}

#[test]
fn each_acs_service_must_be_on_or_fixed() {
    for bit in [0, 2, 3, 4].map(|bit| 1 << bit) {
        assert!(!redirects(ROOT, Some((ALL, ALL & !bit)), false), "{bit:#x} is off");
        assert!(redirects(ROOT, Some((ALL & !bit, ALL & !bit)), false), "{bit:#x} is fixed");
    }
}

/// Egress control and direct translated requests, bits 5 and 6, are off afterwards.
#[test]
fn enabling_acs_sets_the_services_that_isolate() {
    for (port, enabled) in [(ROOT, 0x1c), (None, 0x62)] {
        let port = alone(function(port, Some((0x7c, 0x62)), false));
        enable_acs(&**port.config());
        assert_eq!(port.config().read16(0x146), enabled);
    }
}

#[test]
fn a_walk_of_circular_extended_capabilities_terminates() {
    let mut circular = function(ROOT, None, false);
    circular.set(0x140, 0x1001_0002);
    assert_eq!(extended_capability(&**alone(circular).config(), 0x0d), None);
}

#[test]
fn enumeration_groups_functions_by_isolation() {
    let mut port = Registers::bridge(ROOT, 0);
    port.bytes[0x0e] |= 0x80;
    let tree = Tree::default()
        .with_bridge((0, 0x08), port, 1)
        .with(1, 0x00, function(Some(0), None, false))
        .with(0, 0x09, function(Some(9), None, false))
        .with(0, 0x10, function(None, None, false));
    let (found, _) = found(tree, &[]);
    assert!(found[0].is_bridge() && !found[1].is_bridge());
    let isolation: Vec<_> = found.iter().map(Function::isolation).collect();
    assert_eq!(isolation_groups(&isolation).unwrap(), [0, 0, 0, 3]);
}

/// Parses a topology: for each function its bus, device and function numbers, then `<N` if it is
/// below the bridge with index N, `=N` if it has the requester ID of function N, `*` if its header
/// has the multi-function bit, and `-` if it does not redirect requests. A letter
/// instead of N stands for a function that is not listed.
fn topology(text: &str) -> Vec<Isolation> {
    let number = |word: &str, at: usize| word[at..=at].parse::<u8>().unwrap();
    let address = |word: &str| id(number(word, 0), number(word, 1), number(word, 2));
    let words: Vec<_> = text.split(' ').collect();
    let other = |word: &str, mark| {
        let place = word.find(mark)?;
        let digit = &word[place + 1..place + 2];
        Some(digit.parse::<usize>().map_or(id(9, 9, 0), |index| address(words[index])))
    };
    let function = |word: &&str| Isolation {
        requester: PciRequester::new(address(word)).with_alias(other(word, '=')),
        bridge: other(word, '<'),
        multifunction: word.contains('*'),
        redirects: !word.contains('-'),
    };
    words.iter().map(function).collect()
}

/// Topologies, and the first member of each function's group as Linux forms it.
const TOPOLOGIES: &[(&str, &str, &[usize])] = &[
    ("endpoints on the root bus", "010 020", &[0, 1]),
    ("conventional devices on the root bus", "010- 020-", &[0, 1]),
    ("a device with functions without ACS", "010*- 011*- 020-", &[0, 0, 2]),
    ("a device of which one function has ACS", "010*- 011* 012*-", &[0, 1, 0]),
    ("virtual functions", "010 100*<0 101<0 102<0", &[0, 1, 2, 3]),
    ("a port with ACS", "010 100<0", &[0, 1]),
    ("a port without ACS", "010- 100<0", &[0, 0]),
    ("two ports of a device with ACS", "010* 100<0 011* 200<2", &[0, 1, 2, 3]),
    ("two ports of a device without ACS", "010*- 100<0 011*- 200<2", &[0, 0, 0, 0]),
    ("two ports without ACS", "010- 100<0 020- 200<2", &[0, 0, 2, 2]),
    ("a switch with ACS", "010 100<0 200<1 300<2 210<1 400<4", &[0, 1, 2, 3, 4, 5]),
    ("a switch port without ACS", "010 100<0 200<1 300<2 210-<1 400<4", &[0, 1, 2, 3, 4, 4]),
    ("a switch without ACS", "010 100<0 200-<1 300<2 210-<1 400<4", &[0, 1, 2, 2, 4, 4]),
    ("a switch with functions", "010 100*-<0 200<1 300<2 210<1 400<4", &[0, 1, 1, 1, 1, 1]),
    ("a switch below a port without ACS", "010- 100<0 200<1 300<2 210<1", &[0, 0, 0, 0, 0]),
    ("a conventional bridge", "010- 110-<0 120-<0 020", &[0, 0, 0, 3]),
    ("a conventional bridge below a port", "010 100-<0 210-<1 220-<1", &[0, 1, 1, 1]),
    ("a port below a conventional bridge", "010- 110-<0 210<1 300<2", &[0, 0, 0, 0]),
    ("a shared requester ID", "010 020 030=0 040=1", &[0, 1, 0, 1]),
    ("a shared ID that belongs to no function", "010=x 020 030=x", &[0, 1, 0]),
    ("an unknown bridge", "100<x 110<x 200", &[0, 0, 2]),
    ("bridges above each other", "010<1 020<0 030", &[0, 0, 2]),
    ("bridges after the functions below them", "300<2 100<3 210-<1 010", &[0, 1, 0, 3]),
];

#[test]
fn isolation_groups_match_linux() {
    for (name, text, groups) in TOPOLOGIES {
        assert_eq!(isolation_groups(&topology(text)).unwrap(), *groups, "{name}");
    }
}

prop_compose! {
    fn any_function()(
        place in (0..3u8, 0..3u8, 0..3u8),
        bridge in proptest::option::of((0..3u8, 0..3u8, 0..2u8)),
        alias in proptest::option::weighted(0.2, (0..3u8, 0..3u8, 0..2u8)),
        multifunction in any::<bool>(),
        redirects in any::<bool>(),
    ) -> Isolation {
        let address = |(bus, device, function)| id(bus, device, function);
        let requester = PciRequester::new(address(place)).with_alias(alias.map(address));
        Isolation { requester, bridge: bridge.map(address), multifunction, redirects }
    }
}

proptest! {
    #[test]
    fn removing_acs_never_splits_an_isolation_group(
        functions in proptest::collection::vec(any_function(), 1..16),
        changed in any::<proptest::sample::Index>(),
    ) {
        let before = isolation_groups(&functions).unwrap();
        let mut less = functions.clone();
        less[changed.index(functions.len())].redirects = false;
        let after = isolation_groups(&less).unwrap();
        for (first, group) in before.iter().enumerate() {
            prop_assert_eq!(after[first], after[*group]);
        }
    }
}
