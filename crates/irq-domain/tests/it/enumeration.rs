//! Enumerates simulated functions with realistic writable register bits.

#![expect(clippy::cast_possible_truncation, reason = "only the low bits are needed")]

use crate::mock::Kernel;
use irq_domain::pci::{ConfigSpace, Function, PciError, enumerate};
use msi_types::explain::Obstacle;
use msi_types::pci::{BusRange, PciRequester, PciSpace, PciWindow};
use msi_types::{Region, RequesterId};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const EXPRESS: u8 = 0x10;
const BUSES: BusRange = BusRange { first: 0x20, last: 0x2f };
const ROOT: u8 = BUSES.first;

/// Configuration space, with a mask of writable bits.
#[derive(Debug)]
pub(crate) struct Registers {
    pub(crate) bytes: [u8; 4096],
    writable: [u8; 4096],
}

impl Registers {
    /// Creates a function with these base address registers (flags and size).
    pub(crate) fn endpoint(bars: &[(u32, u64)]) -> Self {
        let mut new = Self { bytes: [0; 4096], writable: [0; 4096] };
        new.set(0x00, 0x11e8_1234);
        new.allow(0x04, 7);
        let mut at = 0x10;
        for (flags, size) in bars {
            new.set(at, *flags);
            let mask = size.wrapping_neg();
            new.allow(at, u32::try_from(mask & 0xffff_fff0).unwrap());
            at += 4;
            if flags & 6 == 4 {
                new.allow(at, u32::try_from(mask >> 32).unwrap());
                at += 4;
            }
        }
        new
    }

    /// Creates a PCI Express bridge of the given port type, or a conventional bridge if `None` is
    /// given.
    pub(crate) fn bridge(port: Option<u16>, secondary: u8) -> Self {
        let mut new = Self::endpoint(&[]);
        new.bytes[0x0e] = 1;
        new.allow(0x18, 0xff_ffff);
        new.bytes[0x19] = secondary;
        new.allow(0x20, 0xfff0_fff0);
        new.set(0x24, 0x0001_0001);
        new.allow(0x24, 0xfff0_fff0);
        new.allow(0x28, u32::MAX);
        new.allow(0x2c, u32::MAX);
        new.set_port(port);
        new
    }

    /// Adds a PCI Express capability, if the function has a port type.
    pub(crate) fn set_port(&mut self, port: Option<u16>) {
        if let Some(port) = port {
            self.bytes[0x06] = 0x10;
            self.bytes[0x34] = 0x40;
            self.bytes[0x40] = EXPRESS;
            self.bytes[0x42] = u8::try_from(port << 4 | 2).unwrap();
        }
    }

    pub(crate) fn set(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn allow(&mut self, at: usize, bits: u32) {
        self.writable[at..at + 4].copy_from_slice(&bits.to_le_bytes());
    }
}

pub(crate) type Place = (usize, u8);

/// Buses, of which number 0 is the root bus, and the bridges above them.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    functions: BTreeMap<Place, Registers>,
    /// The bus behind each bridge.
    behind: BTreeMap<Place, usize>,
}

impl Tree {
    pub(crate) fn with(mut self, bus: usize, place: u8, registers: Registers) -> Self {
        self.functions.insert((bus, place), registers);
        self
    }

    pub(crate) fn with_bridge(mut self, at: Place, registers: Registers, behind: usize) -> Self {
        self.behind.insert(at, behind);
        self.with(at.0, at.1, registers)
    }

    /// Resolves an address to a function by the bus numbers of the bridges.
    fn find(&self, mut bus: usize, mut number: u8, address: RequesterId) -> Option<Place> {
        loop {
            if number == address.pci_bus() {
                let place = (bus, address.get() as u8);
                return self.functions.contains_key(&place).then_some(place);
            }
            let leads = |(at, _): &(&Place, &usize)| {
                let bytes = &self.functions[*at].bytes;
                at.0 == bus && (bytes[0x19]..=bytes[0x1a]).contains(&address.pci_bus())
            };
            let (at, behind) = self.behind.iter().find(leads)?;
            (bus, number) = (*behind, self.functions[at].bytes[0x19]);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Config(Arc<Mutex<Tree>>, RequesterId);

impl Config {
    fn read(&self, offset: u16, width: usize) -> u32 {
        let tree = self.0.lock().unwrap();
        let Some(place) = tree.find(0, ROOT, self.1) else { return u32::MAX };
        let mut value = [0; 4];
        let at = usize::from(offset);
        value[..width].copy_from_slice(&tree.functions[&place].bytes[at..at + width]);
        u32::from_le_bytes(value)
    }

    fn write(&self, offset: u16, value: &[u8]) {
        let mut tree = self.0.lock().unwrap();
        let Some(place) = tree.find(0, ROOT, self.1) else { return };
        let registers = tree.functions.get_mut(&place).unwrap();
        for (at, byte) in (usize::from(offset)..).zip(value) {
            let writable = registers.writable[at];
            registers.bytes[at] = registers.bytes[at] & !writable | byte & writable;
        }
    }
}

impl ConfigSpace for Config {
    fn read8(&self, offset: u16) -> u8 {
        self.read(offset, 1) as u8
    }
    fn read16(&self, offset: u16) -> u16 {
        self.read(offset, 2) as u16
    }
    fn read32(&self, offset: u16) -> u32 {
        self.read(offset, 4)
    }
    fn write8(&self, offset: u16, value: u8) {
        self.write(offset, &[value]);
    }
    fn write16(&self, offset: u16, value: u16) {
        self.write(offset, &value.to_le_bytes());
    }
    fn write32(&self, offset: u16, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }
}

fn low() -> PciWindow {
    let cpu = Region::new(0x10_1000_0000, 0x200_0000).unwrap();
    PciWindow::new(PciSpace::Memory32, cpu, 0x1000_0000).unwrap()
}

fn high() -> PciWindow {
    PciWindow::identity(PciSpace::Memory64, Region::new(0x80_0000_0000, 1 << 30).unwrap())
}

pub(crate) fn found(tree: Tree, windows: &[PciWindow]) -> (Vec<Function>, Config) {
    let config = Config(Arc::new(Mutex::new(tree)), RequesterId::pci(ROOT, 0, 0));
    let at = |address| Some(Config(config.0.clone(), address));
    (enumerate(BUSES, windows, at).unwrap(), config)
}

fn requesters(found: &[Function]) -> Vec<PciRequester> {
    found.iter().map(Function::requester).collect()
}

fn at(address: u32) -> PciRequester {
    PciRequester::new(RequesterId::new(address))
}

fn behind(address: u32, alias: u32) -> PciRequester {
    at(address).with_alias(Some(RequesterId::new(alias)))
}

#[test]
fn each_bridge_type_assigns_its_requester_alias() {
    let endpoint = || Registers::endpoint(&[]);
    let tree = Tree::default()
        .with_bridge((0, 0x08), Registers::bridge(Some(4), 0), 1)
        .with(1, 0x00, endpoint())
        .with_bridge((0, 0x10), Registers::bridge(Some(7), 0), 2)
        .with(2, 0x18, endpoint())
        .with_bridge((2, 0x20), Registers::bridge(None, 0), 3)
        .with(3, 0x00, endpoint())
        .with_bridge((0, 0x18), Registers::bridge(None, 0), 4)
        .with(4, 0x00, endpoint())
        .with_bridge((4, 0x08), Registers::bridge(Some(8), 0), 5)
        .with(5, 0x00, endpoint())
        .with_bridge((0, 0x20), Registers::bridge(Some(8), 0), 6)
        .with(6, 0x00, endpoint());
    let (found, _) = found(tree, &[low()]);
    let expected = [
        at(0x2008),
        at(0x2100),
        at(0x2010),
        behind(0x2218, 0x2200),
        behind(0x2220, 0x2200),
        behind(0x2300, 0x2200),
        at(0x2018),
        behind(0x2400, 0x2018),
        behind(0x2408, 0x2018),
        behind(0x2500, 0x2018),
        at(0x2020),
        behind(0x2600, 0x2020),
    ];
    assert_eq!(requesters(&found), expected);
}

/// A bridge whose Bus Master Enable is 0 forwards no messages. If there are several such bridges,
/// the explanation names the one nearest to the function.
#[test]
fn explain_reports_the_nearest_bridge_without_bus_mastering() {
    let mut endpoint = Registers::endpoint(&[]);
    (endpoint.bytes[0x06], endpoint.bytes[0x34], endpoint.bytes[0x50]) = (0x10, 0x50, 5);
    endpoint.allow(0x50, 0x0001_0000);
    let tree = Tree::default()
        .with_bridge((0, 0x08), Registers::bridge(Some(4), 0), 1)
        .with_bridge((1, 0x00), Registers::bridge(Some(5), 0), 2)
        .with(2, 0x00, endpoint);
    let (found, _) = found(tree, &[]);
    let [root, port, function] = found.as_slice() else { panic!("{found:?}") };
    function.enable().unwrap();
    let store = function.store(Arc::new(Kernel), |_| None).unwrap().store;
    store.set_enabled(true).unwrap();
    let obstacle = || store.read_back(0).unwrap().explanation.obstacle();
    assert_eq!(obstacle(), None);
    let closed = |bridge: &Function| {
        let bridge = bridge.requester().function;
        Some(Obstacle::BridgeDisabled { bridge })
    };
    root.config().write16(4, 0);
    assert_eq!(obstacle(), closed(root));
    port.config().write16(4, 2);
    assert_eq!(obstacle(), closed(port));
    function.config().write16(4, 2);
    assert_eq!(obstacle(), Some(Obstacle::BusMasterDisabled));
}

#[test]
fn bars_are_placed_in_windows_of_their_address_width() {
    let bars = [(0, 0x4000), (8, 0x10), (0xc, 1 << 24), (4, 0x1000)];
    let (found, config) =
        found(Tree::default().with(0, 0, Registers::endpoint(&bars)), &[low(), high()]);
    let [function] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(config.read16(4), 0, "disabled until it is enabled");
    function.enable().unwrap();
    assert_eq!(config.read16(4), 6);
    let bars: Vec<_> = (0..6).map(|index| function.bar(index)).collect();
    let cpu = |index: usize| bars[index].map(|bar| (bar.cpu.base(), bar.cpu.size()));
    assert_eq!(cpu(0), Some((0x10_1000_0000, 0x4000)));
    assert_eq!(cpu(1), Some((0x10_1000_4000, 0x10)));
    assert_eq!(cpu(2), Some((0x80_0000_0000, 1 << 24)));
    assert_eq!(cpu(3), None);
    assert_eq!(cpu(4), Some((0x10_1000_5000, 0x1000)));
    let registers = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24].map(|at| config.read32(at));
    assert_eq!(registers, [0x1000_0000, 0x1000_4008, 0xc, 0x80, 0x1000_5004, 0]);
    config.write32(0x18, 0);
    function.enable().unwrap();
    assert_eq!(config.read32(0x18), 0xc);
    config.write32(0x1c, 0);
    function.enable().unwrap();
    assert_eq!(config.read32(0x1c), 0x80, "the addresses are written again after a reset");
}

#[test]
fn bridge_windows_cover_only_the_functions_below() {
    let tree = Tree::default()
        .with_bridge((0, 0x08), Registers::bridge(Some(4), 0), 1)
        .with(1, 0x00, Registers::endpoint(&[(0, 0x1000), (0xc, 1 << 21)]))
        .with_bridge((0, 0x10), Registers::bridge(Some(4), 0), 2)
        .with(0, 0x18, Registers::endpoint(&[(0, 0x1000)]));
    let (found, config) = found(tree, &[low(), high()]);
    let bridge = Config(config.0.clone(), RequesterId::pci(ROOT, 1, 0));
    assert_eq!(bridge.read32(0x20), 0x1000_1000, "1 MiB at 0x1000_0000");
    assert_eq!(bridge.read32(0x24), 0x0011_0001, "2 MiB at 0x80_0000_0000");
    assert_eq!((bridge.read32(0x28), bridge.read32(0x2c)), (0x80, 0x80));
    assert_eq!(bridge.read16(4), 6);
    assert_eq!((bridge.read8(0x18), bridge.read8(0x19), bridge.read8(0x1a)), (0x20, 0x21, 0x21));
    let empty = Config(config.0, RequesterId::pci(ROOT, 2, 0));
    assert_eq!((empty.read32(0x20), empty.read32(0x24)), (0x0000_fff0, 0x0001_fff1));
    assert_eq!(found[3].bar(0).unwrap().bus_base, 0x1010_0000, "behind the bridge's window");
}

#[test]
fn enabling_a_function_with_an_unplaced_bar_fails() {
    let tree = Tree::default().with(0, 0, Registers::endpoint(&[(0, 0x1000), (0, 1 << 30)]));
    let (found, config) = found(tree, &[low(), high()]);
    assert_eq!(found[0].enable(), Err(PciError::Unplaced { bir: 1 }));
    assert_eq!((config.read16(4), found[0].bar(1)), (0, None));
}

#[test]
fn functions_beyond_the_first_need_the_multifunction_bit() {
    let mut several = Registers::endpoint(&[]);
    several.bytes[0x0e] = 0x80;
    let one = || Registers::endpoint(&[]);
    let tree = Tree::default()
        .with(0, 0x08, one())
        .with(0, 0x09, one())
        .with(0, 0x10, several)
        .with(0, 0x17, one())
        .with(0, 0x19, one());
    let (found, _) = found(tree, &[]);
    assert_eq!(requesters(&found), [at(0x2008), at(0x2010), at(0x2017)]);
}

/// A function that answers each read with the next random value.
#[derive(Debug)]
struct Hostile(Arc<Mutex<(Vec<u32>, usize)>>);

impl Hostile {
    fn next(&self) -> u32 {
        let (values, next) = &mut *self.0.lock().unwrap();
        *next = (*next + 1) % values.len();
        values[*next]
    }
}

impl ConfigSpace for Hostile {
    fn read8(&self, _: u16) -> u8 {
        self.next() as u8
    }
    fn read16(&self, _: u16) -> u16 {
        self.next() as u16
    }
    fn read32(&self, _: u16) -> u32 {
        self.next()
    }
    fn write8(&self, _: u16, _: u8) {}
    fn write16(&self, _: u16, _: u16) {}
    fn write32(&self, _: u16, _: u32) {}
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bars_of_hostile_functions_never_overlap(
        values in proptest::collection::vec(
            prop_oneof![any::<u32>(), 0..0x20u32, (0..32u32).prop_map(|bit| u32::MAX << bit)],
            1..200,
        ),
    ) {
        let chance = Arc::new(Mutex::new((values, 0)));
        let windows = [low(), high()];
        let found = enumerate(BUSES, &windows, |_| Some(Hostile(chance.clone()))).unwrap();
        prop_assert!(found.len() <= 16 * 256);
        let bars = |one: &Function| (0..6).filter_map(|bar| one.bar(bar)).collect::<Vec<_>>();
        let mut regions: Vec<_> = found.iter().flat_map(bars).map(|bar| bar.cpu).collect();
        regions.sort();
        for region in &regions {
            let inside = |window: &PciWindow| {
                let last = region.last().unwrap();
                window.cpu().contains(region.base()) && window.cpu().contains(last)
            };
            prop_assert!(windows.iter().any(inside), "{region}");
        }
        let apart = |pair: &[Region]| pair[0].last().unwrap() < pair[1].base();
        prop_assert!(regions.windows(2).all(apart));
    }
}
