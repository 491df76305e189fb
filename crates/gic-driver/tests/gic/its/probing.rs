//! ITS probing tests.
//!
//! Tests for implementations that deviate from the architecture.

use super::setup::{Setup, config, gic, lpi, probe, request, turn_on};
use crate::fake::{Board, Hardware};
use gic_arch::gits::PageSize;
use gic_driver::its::{IdMap, IfEnabled, ProbeError};
use gic_driver::{Coherence, Its, ItsConfig, ItsError, ItsMsiParent, PhysicalRegion};
use msi_types::{Cpu, DeviceId, Isolation, MsiParent, RequesterId};

/// Checks that a message is delivered, which requires correct tables, queue and memory attributes.
pub(crate) fn works(hardware: Hardware, config: &ItsConfig) {
    let setup = Setup::with_config(hardware, config);
    let device = setup.attach(0x4321, 4);
    let block = setup.map(&device, 4, 2);
    assert_eq!(setup.send(lpi(&block, 3)), Some((2, lpi(&block, 3).get())));
    assert_eq!(setup.take(2), [lpi(&block, 3).get()]);
}

#[test]
fn all_page_sizes_and_table_forms_work() {
    for page in [PageSize::Size4K, PageSize::Size16K, PageSize::Size64K] {
        for indirect in [false, true] {
            for looks_into_caches in [false, true] {
                works(
                    Hardware {
                        pages: vec![page],
                        indirect,
                        looks_into_caches,
                        ..Hardware::default()
                    },
                    &config(0),
                );
            }
        }
    }
}

#[test]
fn non_coherence_stated_by_firmware_overrides_the_its_registers() {
    works(Hardware::default(), &config(0).with_coherence(Coherence::NonCoherent));
}

fn taking_over() -> ItsConfig {
    config(0).with_if_enabled(IfEnabled::TakeOver)
}

#[test]
fn an_enabled_its_is_refused_and_left_alone() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 1);
    let block = setup.map(&device, 1, 1);
    let second = Its::new(setup.gic.clone(), &config(0));
    assert_eq!(second.unwrap_err(), ProbeError::AlreadyEnabled(config(0).base()));
    assert!(setup.send(lpi(&block, 0)).is_some());
    setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap();
    assert_eq!(setup.take(2), [lpi(&block, 0).get()]);
}

#[test]
fn an_enabled_its_is_quiesced_before_it_is_taken_over() {
    works(Hardware { left_enabled: true, rest_after: 10, ..Hardware::default() }, &taking_over());
}

#[test]
fn physical_target_addresses_are_used() {
    let hardware = Hardware::default();
    let typer = hardware.typer.with_pta(true);
    works(Hardware { typer, ..hardware }, &config(0));
}

#[test]
fn internal_collections_need_no_table() {
    let hardware = Hardware::default();
    let typer = hardware.typer.with_hcc(4);
    works(Hardware { typer, ..hardware.clone() }, &config(0));
    let (board, its) = probe(Hardware { typer, ..hardware }, &config(0));
    its.unwrap();
    assert!(!board.world().its[0].tables[3].valid());
}

#[test]
fn an_its_that_never_becomes_quiescent_is_refused() {
    let hardware = Hardware { left_enabled: true, rest_after: u32::MAX, ..Hardware::default() };
    let (_, its) = probe(hardware, &taking_over());
    let ProbeError::NotQuiescent { base, wait } = its.unwrap_err() else { panic!() };
    assert_eq!((base, wait.0), (config(0).base(), "GITS_CTLR.Quiescent"));
}

#[test]
fn a_probe_without_memory_leaves_nothing_allocated_or_enabled() {
    for allowance in 0.. {
        let board = Board::with_its(vec![Hardware::default()], 4);
        let gic = gic(&board);
        let before = board.world().memory.live_regions();
        board.world().memory.allowance = Some(allowance);
        match Its::new(gic.clone(), &config(0)) {
            Ok(_) => return assert_eq!(allowance, 3, "device table, collection table, queue"),
            Err(error) => assert!(matches!(error, ProbeError::NoMemory { .. }), "{error}"),
        }
        let world = board.world();
        assert_eq!(world.memory.live_regions(), before);
        assert!(!world.its[0].is_enabled());
        assert!(world.its[0].tables.iter().all(|table| !table.valid()));
    }
}

#[test]
fn more_cpus_than_collection_numbers_are_refused() {
    let hardware = Hardware::default();
    let typer = hardware.typer.with_cil(true).with_collection_id_bits_minus_one(0);
    let (_, its) = probe(Hardware { typer, ..hardware }, &config(0));
    assert_eq!(
        its.unwrap_err(),
        ProbeError::TooFewCollections { base: config(0).base(), cpus: 4, limit: 2 }
    );
}

#[test]
fn an_its_without_physical_lpis_is_refused() {
    let hardware = Hardware::default();
    let typer = hardware.typer.with_physical(false);
    let (_, its) = probe(Hardware { typer, ..hardware }, &config(0));
    assert_eq!(its.unwrap_err(), ProbeError::NoPhysicalLpis(config(0).base()));
}

#[test]
fn a_queue_size_that_gits_cbaser_cannot_hold_is_refused() {
    for queue_bytes in [0, 0x800, 0x1800, 0x11_0000] {
        let (_, its) = probe(Hardware::default(), &config(0).with_queue_bytes(queue_bytes));
        assert!(matches!(its.unwrap_err(), ProbeError::BadConfig { .. }));
    }
}

#[test]
fn the_machine_name_overrides_the_coherence_that_the_its_claims() {
    let hardware = Hardware {
        iidr: 0x0201_743b,
        looks_into_caches: false,
        claims_coherence: true,
        indirect: true,
        ..Hardware::default()
    };
    works(hardware, &config(0).with_machine(vec!["rockchip,rk3588".into()]));
}

#[test]
#[should_panic(expected = "a command was posted before it was published")]
fn coherence_erratum_is_not_applied_to_an_unknown_machine() {
    let hardware = Hardware {
        iidr: 0x0201_743b,
        looks_into_caches: false,
        claims_coherence: true,
        ..Hardware::default()
    };
    works(hardware, &config(0));
}

#[test]
fn an_itt_fits_entries_larger_than_gits_typer_states() {
    let declared = Hardware::default().typer.with_itt_entry_bytes_minus_one(7);
    let setup = Setup::new(Hardware { typer: declared, iidr: 0x1070, ..Hardware::default() });
    setup.board.world().its[0].hardware.typer.set_itt_entry_bytes_minus_one(15);
    let device = setup.attach(5, 1024);
    let block = setup.map(&device, 1024, 0);
    assert_eq!(setup.send(lpi(&block, 1023)), Some((0, lpi(&block, 1023).get())));
    assert_eq!(setup.its.errata().count(), 1);
}

#[test]
fn device_ids_beyond_the_20_bits_of_the_erratum_are_refused() {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(23);
    let setup =
        Setup::new(Hardware { typer, indirect: true, iidr: 0xa100_034c, ..Hardware::default() });
    let id = DeviceId::new(1 << 20);
    let error = setup.its.attach(id, 1).unwrap_err();
    assert_eq!(error, ItsError::DeviceIdOutOfRange { id, bits: 20 });
}

/// `GITS_TYPER.Devbits` and `ID_bits` have their maximum, 31, so identifiers have 32 bits. The
/// number of identifiers, 2^32, does not fit in 32 bits.
#[test]
fn identifiers_of_32_bits_work() {
    let typer = Hardware::default()
        .typer
        .with_device_id_bits_minus_one(31)
        .with_event_id_bits_minus_one(31);
    // A first level of 256 pages of 4 KiB covers 2^26 second-level entries of 8 bytes.
    for (page, last) in [(PageSize::Size4K, (1 << 26) - 1), (PageSize::Size64K, u32::MAX)] {
        let hardware = Hardware { typer, pages: vec![page], indirect: true, ..Hardware::default() };
        let setup = Setup::new(hardware);
        for device in [0, last] {
            let attachment = setup.attach(device, 2);
            let block = setup.map(&attachment, 2, 1);
            let lpi = lpi(&block, 1);
            assert_eq!(setup.send(lpi), Some((1, lpi.get())), "{device:#x}");
            assert_eq!(setup.take(1), [lpi.get()]);
        }
        let wanted = (1 << 16) + 1;
        let error = setup.its.attach(DeviceId::new(1), wanted).unwrap_err();
        assert_eq!(error, ItsError::TooManyEvents { wanted, limit: 1 << 16 });
    }
}

/// A flat table is limited to 256 pages, too few for 2^32 DeviceIDs.
#[test]
fn a_flat_device_table_is_limited_to_256_pages() {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(31);
    let setup = Setup::new(Hardware { typer, ..Hardware::default() });
    // The table has 256 pages of 64 KiB, with entries of 8 bytes.
    let last = 256 * 0x1_0000 / 8 - 1;
    let refused = setup.its.attach(DeviceId::new(last + 1), 1).unwrap_err();
    let id = DeviceId::new(last + 1);
    assert_eq!(refused, ItsError::DeviceIdOutOfRange { id, bits: 21 });
    let attachment = setup.attach(last, 1);
    let block = setup.map(&attachment, 1, 1);
    assert_eq!(setup.send(lpi(&block, 0)), Some((1, lpi(&block, 0).get())));
}

#[test]
fn a_device_table_is_as_large_as_memory_allows() {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(31);
    let board = Board::with_its(vec![Hardware { typer, indirect: true, ..Hardware::default() }], 4);
    // For 2^32 devices, the first level requires 4 MiB.
    board.world().memory.largest = 0x10_0000;
    let setup = Setup::on(board, &config(0));
    setup.bring_up(1);
    let id = DeviceId::new(1 << 30);
    let refused = setup.its.attach(id, 1).unwrap_err();
    assert_eq!(refused, ItsError::DeviceIdOutOfRange { id, bits: 30 });
    let attachment = setup.attach((1 << 30) - 1, 1);
    let block = setup.map(&attachment, 1, 1);
    assert_eq!(setup.send(lpi(&block, 0)), Some((1, lpi(&block, 0).get())));
}

/// Offsets that move a table to an address that no ITS can use: two are misaligned, one exceeds
/// 2^52.
const UNREACHABLE: [u64; 3] = [0x80, 0x1000, 1 << 52];

/// Probes an ITS while the platform returns one of its tables at an address that is off by `shift`.
/// Asserts that all memory is freed if probing fails.
fn probe_misplaced(
    hardware: Hardware,
    config: &ItsConfig,
    table: u32,
    shift: u64,
) -> Result<(), ProbeError> {
    let board = Board::with_its(vec![hardware], 4);
    let gic = gic(&board);
    let before = board.world().memory.live_regions();
    board.world().memory.misplaced = Some((table, shift));
    let result = Its::new(gic.clone(), config).map(drop);
    if result.is_err() {
        let world = board.world();
        assert_eq!(world.memory.live_regions(), before);
        assert!(world.its[0].tables.iter().all(|table| !table.valid()));
        assert!(!world.its[0].queue.valid());
    }
    result
}

#[test]
fn misplaced_tables_are_refused_and_given_back() {
    for page in [PageSize::Size4K, PageSize::Size16K, PageSize::Size64K] {
        let misaligned =
            UNREACHABLE.map(|shift| if shift == 0x1000 { page.bytes() / 2 } else { shift });
        for (table, shift) in (0..2).flat_map(|table| misaligned.map(|shift| (table, shift))) {
            let hardware = Hardware { pages: vec![page], ..Hardware::default() };
            let refused = probe_misplaced(hardware, &config(0), table, shift).unwrap_err();
            assert!(
                matches!(refused, ProbeError::Misplaced { .. }),
                "{page:?}, {shift:#x}: {refused}"
            );
        }
    }
}

#[test]
fn a_misplaced_queue_is_refused_and_given_back() {
    for shift in UNREACHABLE {
        let refused = probe_misplaced(Hardware::default(), &config(0), 2, shift).unwrap_err();
        let expected = "its@8080000: the platform placed the command queue at ";
        assert!(refused.to_string().starts_with(expected), "{refused}");
    }
}

#[test]
fn only_tables_of_64k_pages_lie_beyond_48_bits() {
    for (page, table) in [(PageSize::Size4K, 0), (PageSize::Size16K, 1)] {
        let hardware = Hardware { pages: vec![page], ..Hardware::default() };
        let refused = probe_misplaced(hardware, &config(0), table, 1 << 48).unwrap_err();
        assert!(matches!(refused, ProbeError::Misplaced { .. }), "{refused}");
    }
    for table in 0..3 {
        probe_misplaced(Hardware::default(), &config(0), table, 1 << 48).unwrap();
    }
    probe_misplaced(
        Hardware { pages: vec![PageSize::Size4K], ..Hardware::default() },
        &config(0),
        2,
        1 << 48,
    )
    .unwrap();
}

/// Returns a Rockchip RK3568 with two-level tables.
fn rk3568() -> (Hardware, ItsConfig) {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(19);
    let hardware = Hardware { typer, iidr: 0x0201_743b, indirect: true, ..Hardware::default() };
    (hardware, config(0).with_machine(vec!["rockchip,rk3568".into()]))
}

#[test]
fn an_its_with_the_rk3568_erratum_allocates_below_4_gib() {
    let (hardware, config) = rk3568();
    let setup = Setup::with_config(hardware, &config);
    let block = setup.map(&setup.attach(0x4321, 4), 4, 2);
    assert!(setup.send(lpi(&block, 3)).is_some());
    // The LPI tables belong to the GIC, and its redistributors don't have the erratum here.
    let world = setup.board.world();
    assert_eq!((world.memory.regions_from(1 << 32), world.memory.live_regions()), (5, 10));
}

#[test]
fn memory_beyond_the_limit_is_refused() {
    let (hardware, config) = rk3568();
    for table in 0..3 {
        let refused = probe_misplaced(hardware.clone(), &config, table, 1 << 32).unwrap_err();
        assert!(matches!(refused, ProbeError::Misplaced { .. }), "{refused}");
    }
    let setup = Setup::with_config(hardware, &config);
    for table in 0..2 {
        setup.board.world().memory.misplaced = Some((table, 1 << 32));
        let refused = setup.its.attach(DeviceId::new(7), 1).unwrap_err();
        assert!(matches!(refused, ItsError::Misplaced { .. }), "{refused}");
    }
}

#[test]
fn a_dropped_its_without_devices_is_disabled() {
    let board = Board::with_its(vec![Hardware::default()], 4);
    let gic = gic(&board);
    let before = board.world().memory.live_regions();
    drop(Its::new(gic.clone(), &config(0)).unwrap());
    let world = board.world();
    assert!(!world.its[0].is_enabled());
    assert!(!world.its[0].queue.valid() && world.its[0].tables.iter().all(|table| !table.valid()));
    assert_eq!(world.memory.live_regions(), before);
    drop(world);
    assert!(Its::new(gic, &config(0)).is_ok(), "the ITS can be probed again");
}

#[test]
fn a_dropped_its_with_devices_keeps_translating() {
    let setup = Setup::new(Hardware::default());
    let device = setup.attach(5, 4);
    let block = setup.map(&device, 4, 1);
    let Setup { board, its, .. } = setup;
    let before = board.world().memory.live_regions();
    drop(its);
    assert_eq!(board.world().memory.live_regions(), before);
    assert!(board.world().message(0, 5, 3).is_some_and(|(_, lpi)| lpi == block.first().get() + 3));
}

#[test]
fn a_dropped_its_that_is_not_quiescent_keeps_its_memory() {
    let board = Board::with_its(vec![Hardware { rest_after: 1000, ..Hardware::default() }], 4);
    let its = Its::new(gic(&board), &config(0)).unwrap();
    let before = board.world().memory.live_regions();
    drop(its);
    assert_eq!(
        board.world().memory.live_regions(),
        before - 5,
        "only the LPI tables of the GIC and of 4 CPUs were freed"
    );
    assert!(board.world().its[0].queue.valid());
}

#[test]
fn an_its_with_the_thunderx_errata_delivers_messages() {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(20);
    let hardware =
        Hardware { iidr: 0xa100_134c, typer, looks_into_caches: false, ..Hardware::default() };
    works(hardware, &config(0));
}

#[test]
fn a_local_node_its_refuses_targets_of_other_nodes() {
    let targets = Some([0, 1].map(Cpu::new).to_vec());
    let board = Board::with_its(vec![Hardware { reach: 2, ..Hardware::default() }], 4);
    let setup = Setup::on(board, &config(0).with_targets(targets));
    let refused = |error| matches!(error, ItsError::NotReachable(cpu, _) if cpu.get() == 2);
    (0..2).for_each(|cpu| setup.bring_up(cpu));
    turn_on(&setup.gic, 2);
    let device = setup.attach(5, 2);
    assert!(refused(setup.cpu_on(2).unwrap_err()));
    assert!(refused(setup.its.map_events(&device, request(1, 2)).unwrap_err()));
    let block = setup.map(&device, 1, 0);
    assert!(refused(setup.its.move_event(lpi(&block, 0), Cpu::new(2)).unwrap_err()));
    assert!(refused(setup.its.cpu_off(Cpu::new(0), Cpu::new(2)).unwrap_err()));
    setup.its.cpu_off(Cpu::new(0), Cpu::new(1)).unwrap();
    assert_eq!(setup.send(lpi(&block, 0)), Some((1, lpi(&block, 0).get())));
}

const WINDOW: PhysicalRegion = PhysicalRegion { base: 0x5800_0000, bytes: 0x20_0000 };

fn synquacer() -> (Hardware, ItsConfig) {
    let typer = Hardware::default().typer.with_device_id_bits_minus_one(31);
    let hardware = Hardware { iidr: 0x0001_143b, typer, ..Hardware::default() };
    (hardware, config(0).with_machine(vec!["socionext,synquacer-pre-its".into()]))
}

#[test]
fn a_pre_its_doorbell_address_encodes_the_device_id() {
    let (hardware, config) = synquacer();
    let setup = Setup::with_config(hardware, &config.with_pre_its(Some(WINDOW)));
    let device = setup.attach(0x123, 2);
    let block = setup.map(&device, 2, 1);
    let message = setup.its.message(lpi(&block, 1)).unwrap();
    assert_eq!((message.address, message.data), (0x5800_048c, 1));
    assert_eq!(setup.its.doorbell(), WINDOW.base);
    // The window is 2 MiB long and consists of 32-bit words.
    let beyond = setup.its.attach(DeviceId::new(1 << 19), 1);
    assert!(matches!(beyond, Err(ItsError::DeviceIdOutOfRange { bits: 19, .. })), "{beyond:?}");
    let parent = ItsMsiParent::new(setup.its.clone(), IdMap::identity());
    let isolation = parent.isolation(RequesterId::new(1));
    assert!(matches!(isolation, Isolation::NotIsolated(_)), "{isolation:?}");
}

#[test]
fn a_pre_its_without_its_window_is_refused() {
    let (hardware, config) = synquacer();
    let (_, refused) = probe(hardware.clone(), &config);
    assert!(matches!(refused, Err(ProbeError::BadConfig { .. })), "{refused:?}");
    let tiny = PhysicalRegion { bytes: 4, ..WINDOW };
    let (_, refused) = probe(hardware, &config.with_pre_its(Some(tiny)));
    assert!(matches!(refused, Err(ProbeError::BadConfig { .. })), "{refused:?}");
}
