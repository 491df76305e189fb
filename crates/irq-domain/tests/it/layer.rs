//! Layers between a device and its controller: buses with quirks, and IOMMUs.

mod bus;
mod iommu;

use crate::mock::{
    Addressing, Bus, Hook, Hotplug as _, Kernel, Machine, Store, StoreKind, assert_task,
    count_down, judge, lock, refusal,
};
use irq_domain::layer::{
    AddressRule, DoorbellMapping, DoorbellMode, Iommu, IommuDomain, IovaConstraint, LayeredParent,
    RequesterRule, ShimLayer, Translated,
};
use irq_domain::{IrqHandle, MoveError, MsiDevice, MsiDeviceConfig, MsiDeviceError};
use msi_types::{
    BlockRequest, Capabilities, Capability, Cpu, DmaIsolated, DmaIsolation, DoorbellPage, Fit,
    Granule, Initially, InterruptIsolated, IsolatingMechanism, Isolation, Mismatch, MoveOutcome,
    MsiError, MsiParent, NotDmaIsolated, NotIsolated, Properties, Property, RequesterId, Rewrite,
    Shape, Storage, Tier,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const DEVICE: RequesterId = RequesterId::pci(1, 0, 0);

/// An IOMMU that panics where a real one would fault or lose a mapping.
pub(crate) struct Translation {
    mode: DoorbellMode,
    /// Domain of the devices with this bus number. Devices on other buses are not served.
    domains: BTreeMap<u8, u32>,
    fail_in: AtomicUsize,
    /// Mapped pages, by domain and the address that the device sees.
    mapped: Mutex<BTreeMap<(u32, u64), u64>>,
    maps: AtomicUsize,
}

impl Translation {
    pub(crate) fn new(mode: DoorbellMode) -> Arc<Self> {
        Arc::new(Self {
            mode,
            domains: BTreeMap::from([(1, 10), (2, 10), (3, 30)]),
            fail_in: AtomicUsize::new(usize::MAX),
            mapped: Mutex::default(),
            maps: AtomicUsize::new(0),
        })
    }

    fn granule(&self) -> Granule {
        match self.mode {
            DoorbellMode::Mapped(granule) | DoorbellMode::Nested { granule, .. } => granule,
            _ => Granule::Size4K,
        }
    }

    /// Translates the address of a device's write.
    fn translate(&self, device: RequesterId, address: u64) -> u64 {
        let Some(domain) = self.domains.get(&device.pci_bus()) else { return address };
        let granule = self.granule();
        let seen = match self.mode {
            DoorbellMode::Identity | DoorbellMode::Reserved { .. } => return address,
            DoorbellMode::Mapped(_) => address,
            DoorbellMode::Nested { stored, doorbell, .. } => {
                assert_eq!(address, stored, "not the address that the guest stored");
                doorbell
            }
        };
        let mapped = self.mapped.lock().unwrap();
        let page = mapped.get(&(*domain, granule.page(seen)));
        page.unwrap_or_else(|| panic!("{device} faults at {address:#x}")) | granule.offset(seen)
    }

    pub(crate) fn pages(&self) -> usize {
        self.mapped.lock().unwrap().len()
    }
}

struct Driver(Arc<Translation>);

impl Iommu for Driver {
    fn domain(&self, device: RequesterId) -> Option<IommuDomain> {
        self.0.domains.get(&device.pci_bus()).copied().map(IommuDomain)
    }

    fn mode(&self, _: IommuDomain) -> DoorbellMode {
        self.0.mode
    }

    fn map(
        &self,
        domain: IommuDomain,
        page: u64,
        constraint: IovaConstraint,
    ) -> Result<u64, &'static str> {
        assert_task();
        let granule = self.0.granule();
        assert_eq!(granule.offset(page), 0, "not page-aligned");
        if !count_down(&self.0.fail_in) {
            return Err("injected");
        }
        let count = self.0.maps.fetch_add(1, Relaxed) as u64;
        // Map the page as high as the endpoint can address, so that an endpoint with fewer address
        // bits cannot share the mapping.
        let at = match constraint {
            IovaConstraint::Within { address_bits: 64 } => 0x10_0000_0000 + count * granule.bytes(),
            IovaConstraint::Within { address_bits } => {
                (1 << (address_bits - 1)) + count * granule.bytes()
            }
            IovaConstraint::At(at) => at,
        };
        let mut mapped = lock(&self.0.mapped);
        let twice = mapped.iter().any(|((other, seen), known)| {
            *other == domain.0 && *known == page && constraint.admits(*seen)
        });
        assert!(!twice, "mapped twice");
        assert!(mapped.insert((domain.0, at), page).is_none(), "mapped over another page");
        Ok(at)
    }

    fn unmap(&self, domain: IommuDomain, mapped: u64) {
        assert_task();
        judge(lock(&self.0.mapped).remove(&(domain.0, mapped)).is_some(), "unmapped twice");
    }

    fn translate(&self, domain: IommuDomain, address: u64) -> Translated {
        let granule = self.0.granule();
        let page = lock(&self.0.mapped).get(&(domain.0, granule.page(address))).copied();
        page.map_or(Translated::Refused, |page| Translated::To(page | granule.offset(address)))
    }
}

pub(crate) fn iommu(machine: &Machine, translation: &Arc<Translation>) -> Arc<dyn MsiParent> {
    let layer = DoorbellMapping::new(Driver(translation.clone()), Arc::new(Kernel));
    Arc::new(LayeredParent::new(layer, machine.controller.clone(), Arc::new(Kernel)))
}

/// Creates a machine with an IOMMU.
fn translated(
    kind: Addressing,
    mode: DoorbellMode,
) -> (Machine, Arc<Translation>, Arc<dyn MsiParent>) {
    let machine = Machine::new(kind);
    let translation = Translation::new(mode);
    let parent = iommu(&machine, &translation);
    (machine, translation, parent)
}

fn shim(machine: &Machine, layer: ShimLayer) -> Arc<dyn MsiParent> {
    Arc::new(LayeredParent::new(layer, machine.controller.clone(), Arc::new(Kernel)))
}

fn attach(
    machine: &Machine,
    parent: &Arc<dyn MsiParent>,
    requester: RequesterId,
    store: &Arc<Store>,
) -> Result<MsiDevice, MsiDeviceError> {
    let config = MsiDeviceConfig::new("device", requester, parent.clone(), store.clone());
    MsiDevice::attach(&machine.interrupts, config)
}

/// Attaches a device whose writes the IOMMU translates.
fn behind(
    machine: &Machine,
    parent: &Arc<dyn MsiParent>,
    translation: &Arc<Translation>,
    requester: RequesterId,
) -> (Arc<Store>, MsiDevice) {
    let store = machine.store(StoreKind::MSIX);
    translate(&store, translation, requester);
    let device = attach(machine, parent, requester, &store).unwrap();
    (store, device)
}

/// Has the IOMMU translate a device's writes, which it receives from `requester`.
fn translate(store: &Store, translation: &Arc<Translation>, requester: RequesterId) {
    let translation = translation.clone();
    *store.bus.lock().unwrap() = Some(Bus(Box::new(move |message| msi_types::MsiMessage {
        address: translation.translate(requester, message.address),
        ..message
    })));
}

/// A device behind an IOMMU, with one vector on CPU 0.
struct Setup {
    machine: Machine,
    translation: Arc<Translation>,
    store: Arc<Store>,
    handle: IrqHandle,
    device: MsiDevice,
}

fn one_vector(kind: Addressing, mode: DoorbellMode) -> Setup {
    let (machine, translation, parent) = translated(kind, mode);
    let (store, device) = behind(&machine, &parent, &translation, DEVICE);
    device.allocate_at(&[0]).unwrap();
    let handle = device.request(0, "test", |_| {}).unwrap();
    Setup { machine, translation, store, handle, device }
}

impl Setup {
    fn arrives(&self) {
        let before = self.handle.count();
        self.store.fire(0);
        self.machine.settle();
        assert_eq!(self.handle.count(), before + 1);
    }
}

const MAPPED: DoorbellMode = DoorbellMode::Mapped(Granule::Size4K);

/// Creates a shim over an IOMMU over the controller.
fn stack(
    machine: &Machine,
    translation: &Arc<Translation>,
    layer: ShimLayer,
) -> Arc<dyn MsiParent> {
    Arc::new(LayeredParent::new(layer, iommu(machine, translation), Arc::new(Kernel)))
}

#[test]
fn attach_error_names_the_tier_lacking_a_capability() {
    let machine = Machine::new(Addressing::Stays);
    let layer =
        ShimLayer::new("bridge").with_blocks(Capabilities::NONE.with(Capability::DeviceStorage));
    let parent = stack(&machine, &Translation::new(MAPPED), layer);
    let emulated = StoreKind { storage: Storage::Emulated, ..StoreKind::MSIX };
    let refused = attach(&machine, &parent, DEVICE, &machine.store(emulated)).err();
    let missing = Mismatch::Missing { capability: Capability::DeviceStorage, tier: "bridge" };
    assert_eq!(refused, Some(missing.into()));
    let refused = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::SLOW)).err();
    assert_eq!(refused, Some(missing.into()));
    assert_eq!(
        refused.unwrap().to_string(),
        "the endpoint needs messages that the device stores itself, \
         which tier bridge does not offer"
    );
}

#[test]
fn describe_prints_every_layer_of_a_stack() {
    let machine = Machine::new(Addressing::Stays);
    let parent = stack(&machine, &Translation::new(MAPPED), ShimLayer::new("bridge"));
    let device = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).unwrap();
    let granted = device.allocate_at(&[0]).unwrap();
    let mut text = String::new();
    machine.interrupts.describe(granted[0].irq, &mut text).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.trim().split(':').next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "irq 0",
            "device device",
            "bridge",
            "to address 0x1000000040, data 0x2000 below",
            "iommu",
            "to address 0x8090040, data 0x2000 below",
            "mock controller",
        ]
    );
}

#[test]
fn interleaved_attach_and_detach_keep_domains_separate() {
    const STEPS: u32 = 6;
    let rule = RequesterRule::Shifted { shift: 0, base: 0x200 };
    let layer = ShimLayer::new("bridge").with_requesters(rule);
    for order in (0..1_u32 << (2 * STEPS)).filter(|order| order.count_ones() == STEPS) {
        let (machine, translation) = (Machine::new(Addressing::NamesCpu), Translation::new(MAPPED));
        let parent = stack(&machine, &translation, layer);
        let (mut devices, mut handles) = ([const { None }; 2], [const { Vec::new() }; 2]);
        let mut steps = [0; 2];
        for turn in 0..2 * STEPS {
            let number = (order >> turn & 1) as usize;
            match steps[number] {
                0 | 4 => {
                    let bus = u8::try_from(number).unwrap();
                    let store = machine.store(StoreKind::MSIX);
                    translate(&store, &translation, RequesterId::pci(2 + bus, 0, 0));
                    let requester = RequesterId::pci(bus, 0, 0);
                    let device = attach(&machine, &parent, requester, &store).unwrap();
                    devices[number] = Some((device, store));
                }
                3 => {
                    handles[number].clear();
                    devices[number] = None;
                }
                step => {
                    let (device, _) = devices[number].as_ref().unwrap();
                    device.allocate_at(&[step]).unwrap();
                    handles[number].push((step, device.request(step, "test", |_| {}).unwrap()));
                }
            }
            steps[number] += 1;
            for (device, handles) in devices.iter().zip(&handles) {
                for (slot, handle) in handles {
                    let before = handle.count();
                    handle.set_affinity(Cpu::new(turn % 4)).unwrap();
                    device.as_ref().unwrap().1.fire(*slot);
                    machine.settle();
                    assert_eq!(handle.count(), before + 1, "{order:#b}");
                }
            }
        }
        drop((handles, devices));
        assert_eq!((translation.pages(), machine.controller.in_use()), (0, (0, 0)));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { slots: Vec<u16> },
    Free { slot: u16 },
    Move { slot: u16, cpu: u32 },
    Fire { slot: u16 },
    ControllerFails { after: usize },
    StoreFails { after: usize },
    IommuFails { after: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(0..8u16, 1..4).prop_map(|slots| Step::Allocate { slots }),
        2 => (0..8u16).prop_map(|slot| Step::Free { slot }),
        5 => (0..8u16, 0..4u32).prop_map(|(slot, cpu)| Step::Move { slot, cpu }),
        3 => (0..8u16).prop_map(|slot| Step::Fire { slot }),
        1 => (0..8usize).prop_map(|after| Step::ControllerFails { after }),
        1 => (0..8usize).prop_map(|after| Step::StoreFails { after }),
        1 => (0..4usize).prop_map(|after| Step::IommuFails { after }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn mapped_pages_match_the_stored_messages(
        kind in prop_oneof![Just(Addressing::Stays), Just(Addressing::NamesCpu)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let machine = Machine::new(kind);
        let translation = Translation::new(DoorbellMode::Mapped(Granule::Size64K));
        let parent = stack(&machine, &translation, ShimLayer::new("bridge"));
        let (store, device) = behind(&machine, &parent, &translation, DEVICE);
        let mut handles = BTreeMap::new();
        for step in steps {
            match step {
                Step::Allocate { slots } => {
                    for vector in device.allocate_at(&slots).unwrap_or_default() {
                        let handle = device.request(vector.slot, "test", |_| {}).unwrap();
                        handles.insert(vector.slot, handle);
                    }
                }
                Step::Free { slot } => {
                    if handles.remove(&slot).is_some() {
                        device.free(slot).unwrap();
                    }
                }
                Step::Move { slot, cpu } => {
                    if let Some(handle) = handles.get(&slot) {
                        let _ = handle.set_affinity(Cpu::new(cpu));
                    }
                }
                Step::Fire { slot } => {
                    if let Some(handle) = handles.get(&slot) {
                        let before = handle.count();
                        store.fire(slot);
                        machine.settle();
                        prop_assert_eq!(handle.count(), before + 1);
                    }
                }
                Step::ControllerFails { after } => machine.controller.fail_in.store(after, Relaxed),
                Step::StoreFails { after } => store.fail_in.store(after, Relaxed),
                Step::IommuFails { after } => translation.fail_in.store(after, Relaxed),
            }
            let stored = handles.keys().map(|slot| store.message(*slot).unwrap().address);
            let page = |address| (10, Granule::Size64K.page(address));
            let needed: BTreeSet<_> = stored.map(page).collect();
            let mapped: BTreeSet<_> = translation.mapped.lock().unwrap().keys().copied().collect();
            prop_assert_eq!(mapped, needed);
        }
        drop(device);
        prop_assert_eq!(translation.pages(), 0);
        prop_assert_eq!(machine.controller.vectors_in_use(), 0);
    }
}
