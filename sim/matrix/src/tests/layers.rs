//! Tests of doorbells behind the machine's IOMMU and of remapping on x86, beyond what the matrix
//! covers.

use super::super::PassthroughError;
use super::super::trial::Trial;
use super::*;
use doorbell_hardware::iommu::IommuFault;
use irq_domain::layer::DoorbellMode;
use irq_domain::{SharedDevice, SharedDeviceConfig};
use msi_types::{
    DmaIsolation, Granule, IsolatingMechanism, Isolation, MsiMessage, NotDmaIsolated, RequesterId,
};
use std::sync::Arc;

const GRANULES: [Granule; 3] = [Granule::Size4K, Granule::Size16K, Granule::Size64K];

fn behind(parent: Parent, mode: DoorbellMode) -> Board {
    Board::with_mode(plan(parent, Layer::DoorbellMapping, World::BareMetal), mode).unwrap()
}

/// Returns the address of a parent's first doorbell.
fn doorbell(parent: Parent) -> u64 {
    let board = board(parent, Layer::None, World::BareMetal);
    let trial = Trial::begin(&board, Endpoint::PciMsi).unwrap();
    trial.message(0).unwrap().address
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn doorbells_are_mapped_in_pages_of_every_size() {
    for parent in ARM {
        for (number, granule) in GRANULES.into_iter().enumerate() {
            let board = behind(parent, DoorbellMode::Mapped(granule));
            // All endpoints share the mapping code, so each is tested with only one of the sizes.
            for endpoint in Endpoint::ALL.iter().skip(number).step_by(GRANULES.len()) {
                assert_eq!(
                    attempt(&board, *endpoint),
                    Outcome::Works,
                    "{endpoint} on {parent}, {granule:?}"
                );
            }
        }
    }
}

#[test]
fn doorbells_stay_mapped_while_vectors_exist() {
    let board = behind(Parent::DirectLpi, DoorbellMode::Mapped(Granule::Size4K));
    let trial = Trial::begin(&board, Endpoint::PciMsi).unwrap();
    let mut stored = Vec::new();
    for cpu in [0, 1, 2, 0] {
        trial.relocate(0, cpu).unwrap();
        assert_eq!(board.pages(), (1, 1));
        trial.deliver().unwrap();
        stored.push(trial.message(0).unwrap().address);
    }
    stored.dedup();
    assert_eq!(stored.len(), 4, "{stored:x?}: each move has a different target");
    trial.end().unwrap();
}

#[test]
fn iommu_makes_far_doorbell_reachable() {
    let tried = |layer| {
        let near = plan(Parent::DirectLpi, layer, World::BareMetal);
        let board =
            Board::new(BoardConfig { spread: RedistributorLayout::FarApart, ..near }).unwrap();
        attempt(&board, Endpoint::PciMsi)
    };
    let torn = "the endpoint cannot change its message in one store and cannot be masked";
    assert_eq!(tried(Layer::None), Outcome::Refused(torn.to_owned()));
    assert_eq!(tried(Layer::DoorbellMapping), Outcome::Works);
}

#[test]
fn an_msix_table_and_an_ims_queue_share_one_attachment() {
    for (parent, layer, world) in stacks().filter(|(_, _, world)| *world == World::BareMetal) {
        let board = board(parent, layer, world);
        let device =
            SharedDeviceConfig::new(Endpoint::PciMsix.requester(), Arc::clone(&board.parent), 24);
        let device = SharedDevice::attach(&board.interrupts, device).unwrap();
        let table = Trial::begin_of(&board, Endpoint::PciMsix, &device).unwrap();
        let queue = Trial::begin_of(&board, Endpoint::ImsQueue, &device).unwrap();
        table.travel().unwrap();
        queue.travel().unwrap();
        table.end().unwrap();
        drop(device);
        queue.travel().unwrap();
        queue.end().unwrap();
        board.settle();
        assert_eq!(board.check_quiet(), Ok(()), "{parent}, {layer}");
    }
}

/// Orders of two devices' steps, one bit each.
const ORDERS: [u16; 4] =
    [0b1010_0101_1010_0101, 0b1111_0011_0000_1100, 0b0001_1101_1000_1110, 0b0110_1001_0110_1001];

#[test]
fn interleaved_devices_share_no_state() {
    for (parent, layer, world) in stacks() {
        let other = if parent.is_virtual_bus() { Endpoint::PciMsi } else { Endpoint::Emulated };
        for order in ORDERS {
            let board = Board::new(BoardConfig::new(parent, layer, world)).unwrap();
            let (mut devices, mut trials) = ([const { None }; 2], [const { None }; 2]);
            let mut steps = [0; 2];
            for number in (0..16).map(|turn| usize::from(order >> turn & 1)) {
                let endpoint = [Endpoint::PciMsix, other][number];
                match steps[number] {
                    0 | 4 => {
                        let upstream = Arc::clone(&board.parent);
                        let config = SharedDeviceConfig::new(endpoint.requester(), upstream, 24);
                        let device = SharedDevice::attach(&board.interrupts, config).unwrap();
                        devices[number] = Some(device);
                    }
                    1 | 5 => {
                        let device = devices[number].as_ref().unwrap();
                        let trial = Trial::begin_of(&board, endpoint, device).unwrap();
                        trial.travel().unwrap();
                        trials[number] = Some(trial);
                    }
                    2 | 6 => trials[number].as_mut().map_or(Ok(()), Trial::change).unwrap(),
                    _ => {
                        devices[number] = None;
                        trials[number].take().map_or(Ok(()), Trial::end).unwrap();
                    }
                }
                steps[number] += 1;
                trials.iter().flatten().try_for_each(Trial::deliver).unwrap();
            }
            board.settle();
            assert_eq!(board.check_quiet(), Ok(()), "{parent}, {layer}, {world}, {order:#b}");
        }
    }
}

#[test]
fn the_description_of_a_vector_has_a_line_for_each_level() {
    for (parent, layer, world) in stacks() {
        let board = board(parent, layer, world);
        let text = Trial::begin(&board, Endpoint::PciMsix).unwrap().describe(0);
        let bus = parent.is_virtual_bus();
        let hypervisor = world != World::BareMetal && !bus;
        let layers = [layer != Layer::None, hypervisor, bus];
        let levels = 3 + layers.into_iter().filter(|there| *there).count();
        assert_eq!(text.contains("\n  hypervisor: "), hypervisor, "{text}");
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("    ")).collect();
        assert_eq!(lines.len(), levels, "{text}");
        assert!(lines[0].starts_with("irq ") && lines[1].starts_with("  device "), "{text}");
        assert!(lines[1..].iter().all(|line| line[2..].trim_start() == &line[2..]), "{text}");
    }
}

#[test]
fn a_fault_at_an_unmapped_doorbell_names_the_device() {
    let board = behind(Parent::Its, DoorbellMode::Mapped(Granule::Size4K));
    let trial = Trial::begin(&board, Endpoint::PciMsi).unwrap();
    let real = doorbell(Parent::Its);
    // This device's address space doesn't contain the doorbell's physical address.
    board.devices().write(Endpoint::PciMsi, MsiMessage { address: real, data: 0 });
    // The page in another domain isn't mapped for this device.
    let mapped = trial.message(0).unwrap();
    board.devices().write(Endpoint::ImsRing, mapped);
    let fault = |endpoint: Endpoint, address| IommuFault { device: endpoint.requester(), address };
    let expected = [fault(Endpoint::PciMsi, real), fault(Endpoint::ImsRing, mapped.address)];
    assert_eq!(board.unit().unwrap().faults(), expected);
    trial.deliver().unwrap();
    trial.end().unwrap();
}

#[test]
fn an_identity_domain_neither_maps_doorbells_nor_isolates_dma() {
    for parent in ARM {
        let board = behind(parent, DoorbellMode::Identity);
        let trial = Trial::begin(&board, Endpoint::PciMsix).unwrap();
        trial.deliver().unwrap();
        assert_eq!(board.pages(), (0, 0));
        let device = Endpoint::PciMsix.requester();
        let dma = board.parent.dma_isolation(device);
        assert_eq!(dma, DmaIsolation::NotIsolated(NotDmaIsolated::Identity), "{parent}");
        assert!(board.pass_through(Endpoint::PciMsix).is_err(), "{parent}");
        trial.end().unwrap();
    }
}

#[test]
fn passthrough_requires_an_its_and_a_translating_iommu() {
    let device = Endpoint::PciMsix.requester();
    let refused = |reason| Err(PassthroughError::NotDmaIsolated { device, reason });
    let alone = board(Parent::Its, Layer::None, World::BareMetal);
    assert_eq!(alone.isolation(Endpoint::PciMsix), Isolation::Isolated(IsolatingMechanism::Its));
    assert_eq!(alone.pass_through(Endpoint::PciMsix), refused(NotDmaIsolated::NoIommu));
    let identity = behind(Parent::Its, DoorbellMode::Identity);
    assert_eq!(identity.pass_through(Endpoint::PciMsix), refused(NotDmaIsolated::Identity));
    let translated = behind(Parent::Its, DoorbellMode::Mapped(Granule::Size4K));
    assert_eq!(translated.pass_through(Endpoint::PciMsix), Ok(()));
    let shared = behind(Parent::V2m, DoorbellMode::Mapped(Granule::Size4K));
    assert!(matches!(
        shared.pass_through(Endpoint::PciMsix),
        Err(PassthroughError::NotIsolated { .. })
    ));
    translated.check_quiet().unwrap();
}

#[test]
fn nested_doorbell_is_mapped_at_guest_address() {
    for granule in GRANULES {
        let real = doorbell(Parent::Its);
        let seen = 0x0a00_0000 + granule.offset(real);
        let stored = 0x1234_0000 + granule.offset(real);
        let board = behind(Parent::Its, DoorbellMode::Nested { granule, stored, doorbell: seen });
        let trial = Trial::begin(&board, Endpoint::PciMsi).unwrap();
        assert_eq!(trial.message(0).unwrap().address, stored);
        trial.travel().unwrap();
        trial.end().unwrap();
        assert_eq!(board.pages(), (0, 0));
    }
}

#[test]
fn a_reserved_region_passes_only_doorbells_inside_it() {
    let real = doorbell(Parent::Its);
    let around = DoorbellMode::Reserved { base: real & !0xffff, length: 0x1_0000 };
    let board = behind(Parent::Its, around);
    assert_eq!(attempt(&board, Endpoint::PciMsix), Outcome::Works);
    let beside = behind(Parent::Its, DoorbellMode::Reserved { base: 0x0800_0000, length: 0x1000 });
    let outcome = attempt(&beside, Endpoint::PciMsix);
    assert_refused(&outcome, "outside the region that the hardware reserves");
}

#[test]
fn only_an_its_isolates_a_mapped_doorbell_page() {
    let isolation = |parent, mode| behind(parent, mode).isolation(Endpoint::PciMsi);
    for granule in GRANULES {
        for parent in ARM {
            let found = isolation(parent, DoorbellMode::Mapped(granule));
            // The ITS translation frame is a separate 64 KiB page.
            let is_isolated = matches!(found, Isolation::Isolated(_));
            assert_eq!(is_isolated, parent == Parent::Its, "{parent}");
        }
    }
}

/// Makes a device write another device's message. Returns `true` if the other device's handler ran,
/// and the faults from blocked writes.
fn trespass(layer: Layer) -> (bool, Vec<(RequesterId, u8)>) {
    let board = board(Parent::X86Vector, layer, World::BareMetal);
    let trial = Trial::begin(&board, Endpoint::PciMsi).unwrap();
    board.devices().write(Endpoint::PciMsix, trial.message(0).unwrap());
    board.settle();
    (trial.total_runs() != 0, board.remapping_faults())
}

#[test]
fn x86_remapping_stops_foreign_interrupts() {
    assert_eq!(trespass(Layer::None), (true, Vec::new()));
    let wrong_source = 0x26;
    assert_eq!(
        trespass(Layer::Remapping),
        (false, vec![(Endpoint::PciMsix.requester(), wrong_source)])
    );
}
