//! Tests for direct injection. The fake carries out commands for vPEs only at a VSYNC, and changes
//! of residency only once `Dirty` has read as 0.

use super::setup::{Setup, config, lpi, request};
use crate::fake::{Board, Hardware};
use gic_arch::Lpi;
use gic_arch::gits::Typer;
use gic_arch::lpi::Config;
use gic_driver::its::{DirectEvent, IfEnabled, VirtualLpi, VpeSet};
use gic_driver::{Its, ItsError};
use msi_types::{Cpu, DeviceId, HwIrqBlock, Pending};
use std::mem;
use std::sync::Arc;

const CPUS: usize = 4;
pub(super) const VPES: u16 = 2;
const ID_BITS: u8 = 14;
const ENABLED: Config = Config::new().with_enable(true);

/// A machine with GICv4, and two vPEs on CPUs 1 and 2.
pub(super) struct Direct {
    pub(super) setup: Setup,
    pub(super) vpes: VpeSet<Board>,
}

pub(super) fn hardware() -> Hardware {
    let typer = Hardware::default().typer;
    Hardware { typer: typer.with_virtual_lpis(true).with_vmovp(true), ..Hardware::default() }
}

pub(super) fn setup(hardware: Hardware, vpes: u16) -> Setup {
    let board = Board::with_its(vec![hardware], 4).with_vlpi_frames();
    board.world().redistributors.iter_mut().for_each(|rd| rd.coherent = true);
    let setup = Setup::on(board, &config(0).with_vpes(vpes));
    (0..4).for_each(|cpu| setup.bring_up(cpu));
    setup
}

pub(super) fn vpes(setup: &Setup) -> Result<VpeSet<Board>, ItsError> {
    VpeSet::new(setup.its.clone(), ID_BITS, &[Cpu::new(1), Cpu::new(2)])
}

pub(super) fn virtual_lpi(vpe: u16, index: u32) -> VirtualLpi {
    VirtualLpi { vpe, lpi: Lpi::from_index(index).unwrap() }
}

impl Direct {
    /// Creates the machine with resident vPEs and ten enabled virtual LPIs.
    pub(super) fn new() -> Self {
        let direct = Self::with(hardware());
        (0..VPES).for_each(|vpe| direct.load(vpe));
        direct
    }

    pub(super) fn with(hardware: Hardware) -> Self {
        let setup = setup(hardware, 8);
        let vpes = vpes(&setup).unwrap();
        (0..10).for_each(|index| {
            vpes.configure(virtual_lpi(0, index).lpi, ENABLED).unwrap();
        });
        Self { setup, vpes }
    }

    /// Creates the machine with event 0 handed over to vPE 0.
    fn with_event() -> (Self, HwIrqBlock, DirectEvent) {
        let direct = Self::new();
        let block = direct.map();
        let event = direct.hand_over(&block, 0, virtual_lpi(0, 0));
        (direct, block, event)
    }

    /// Loads a vPE at its first CPU.
    pub(super) fn load(&self, vpe: u16) {
        self.vpes.load(vpe, Cpu::new(u32::from(vpe) + 1)).unwrap();
    }

    /// Maps events 0 to 2 of device 5 to CPU 0.
    pub(super) fn map(&self) -> HwIrqBlock {
        let device = self.setup.attach(5, 3);
        self.setup.map(&device, 3, 0)
    }

    pub(super) fn hand_over(&self, block: &HwIrqBlock, event: u16, to: VirtualLpi) -> DirectEvent {
        self.vpes.hand_over(lpi(block, event), to).unwrap()
    }

    pub(super) fn send(&self, event: u32) -> Option<(usize, u32)> {
        self.setup.board.world().message(0, 5, event)
    }

    /// Takes the virtual LPIs that the guest sees.
    pub(super) fn take(&self, vpe: usize) -> Vec<u32> {
        self.setup.board.world().memory.vpes[vpe].lpis.acknowledge()
    }
}

#[test]
fn messages_of_a_direct_event_reach_its_vpe() {
    let direct = Direct::new();
    let block = direct.map();
    let events = [(0, 1), (1, 0), (2, 1)]
        .map(|(event, vpe)| direct.hand_over(&block, event, virtual_lpi(vpe, event.into())));
    for (event, vpe) in [(0, 1), (1, 0), (2, 1)] {
        let lpi = 8192 + event;
        assert_eq!(direct.send(event), Some((CPUS + vpe, lpi)));
        assert_eq!(direct.take(vpe), [lpi]);
    }
    assert_eq!(direct.setup.its.event_of(lpi(&block, 0)), None);
    for (event, number) in events.into_iter().zip([0u16, 1, 2]) {
        direct.vpes.take_back(event).unwrap();
        assert_eq!(direct.send(number.into()), Some((0, lpi(&block, number).get())));
    }
    assert_eq!(direct.setup.take(0), [0, 1, 2].map(|event| lpi(&block, event).get()));
    assert_eq!((direct.take(0), direct.take(1)), (vec![], vec![]));
}

#[test]
fn messages_of_a_nonresident_vpe_stay_pending() {
    let (direct, _, _event) = Direct::with_event();
    direct.send(0);
    assert!(direct.vpes.put(0).unwrap(), "a virtual LPI is pending");
    assert_eq!(direct.take(0), [0_u32; 0]);
    direct.load(0);
    assert_eq!(direct.take(0), [8192]);
    assert!(!direct.vpes.put(0).unwrap());
    direct.send(0);
    direct.load(0);
    assert_eq!(direct.take(0), [8192]);
}

#[test]
fn a_vpe_becomes_resident_at_any_cpu() {
    let (direct, _, _event) = Direct::with_event();
    for cpu in [3, 0, 1] {
        direct.vpes.put(0).unwrap();
        direct.send(0);
        direct.vpes.load(0, Cpu::new(cpu)).unwrap();
        assert_eq!(direct.take(0), [8192]);
    }
}

#[test]
fn only_a_vpe_with_events_is_resident() {
    let direct = Direct::with(hardware());
    let block = direct.map();
    let resident = || {
        let world = direct.setup.board.world();
        [1, 2, 3].map(|cpu: usize| world.redistributors[cpu].vlpi.is_resident)
    };
    direct.vpes.load(0, Cpu::new(3)).unwrap();
    direct.load(1);
    assert_eq!(resident(), [false; 3]);
    let mut event = direct.hand_over(&block, 0, virtual_lpi(0, 0));
    assert_eq!(resident(), [false, false, true]);
    direct.send(0);
    direct.vpes.move_event(&mut event, 1).unwrap();
    assert_eq!((direct.take(0), direct.take(1)), (vec![], vec![8192]));
    assert!(!direct.vpes.put(0).unwrap());
    direct.vpes.load(0, Cpu::new(1)).unwrap();
    assert_eq!(resident(), [false, true, false]);
    // Another CPU must not evict the vPE of a vCPU that runs.
    direct.vpes.take_back(event).unwrap();
    assert_eq!(resident(), [false, true, false]);
    direct.vpes.put(1).unwrap();
    assert_eq!(resident(), [false; 3]);
}

#[test]
fn load_and_put_wait_for_earlier_residency_changes() {
    let direct = Direct::with(hardware());
    let _event = direct.hand_over(&direct.map(), 0, virtual_lpi(0, 0));
    let lag = |lag| direct.setup.board.world().redistributors[1].vlpi.lag = lag;
    lag(5);
    direct.load(0);
    lag(5);
    direct.vpes.put(0).unwrap();
}

#[test]
fn a_redistributor_whose_dirty_bit_stays_set_is_an_error() {
    let direct = Direct::with(hardware());
    let block = direct.map();
    let _event = direct.hand_over(&block, 0, virtual_lpi(0, 0));
    direct.setup.board.world().redistributors[1].vlpi.stuck = true;
    assert!(matches!(direct.vpes.load(0, Cpu::new(1)), Err(ItsError::Fault(_))));
    let next = direct.vpes.hand_over(lpi(&block, 1), virtual_lpi(0, 1));
    assert!(matches!(next, Err(ItsError::Fault(_))), "the vPE is not resident");
    assert!(matches!(direct.vpes.put(0), Err(ItsError::Fault(_))));
    assert!(matches!(direct.vpes.load(VPES, Cpu::new(1)), Err(ItsError::Fault(_))));
}

#[test]
fn a_vpe_whose_put_failed_is_not_loaded() {
    let (direct, _, _event) = Direct::with_event();
    let stuck = |stuck| direct.setup.board.world().redistributors[1].vlpi.stuck = stuck;
    stuck(true);
    assert!(matches!(direct.vpes.put(0), Err(ItsError::Fault(_))));
    stuck(false);
    assert!(matches!(direct.vpes.load(0, Cpu::new(1)), Err(ItsError::Fault(_))));
    assert!(!direct.vpes.put(0).unwrap());
    direct.load(0);
    direct.send(0);
    assert_eq!(direct.take(0), [8192]);
}

#[test]
fn a_configuration_takes_effect_when_invalidated() {
    let direct = Direct::new();
    let block = direct.map();
    let to = virtual_lpi(1, 4);
    let event = direct.hand_over(&block, 0, to);
    for (config, taken) in [(Config::new(), vec![]), (ENABLED, vec![to.lpi.get()])] {
        direct.vpes.configure(to.lpi, config).unwrap();
        direct.vpes.invalidate(&event).unwrap();
        direct.send(0);
        assert_eq!(direct.take(1), taken);
    }
}

#[test]
fn software_changes_the_pending_state() {
    let (direct, _, event) = Direct::with_event();
    direct.vpes.set_pending(&event, Pending::Set).unwrap();
    assert_eq!(direct.take(0), [8192]);
    direct.send(0);
    direct.vpes.set_pending(&event, Pending::Clear).unwrap();
    assert_eq!(direct.take(0), [0_u32; 0]);
}

#[test]
fn a_direct_event_moves_with_its_pending_state() {
    let (direct, _, mut event) = Direct::with_event();
    direct.send(0);
    direct.vpes.move_event(&mut event, 1).unwrap();
    assert_eq!(event.target(), virtual_lpi(1, 0));
    assert_eq!((direct.take(0), direct.take(1)), (vec![], vec![8192]));
    direct.send(0);
    assert_eq!((direct.take(0), direct.take(1)), (vec![], vec![8192]));
}

#[test]
fn an_event_that_is_handed_over_again_is_not_pending() {
    let (direct, block, event) = Direct::with_event();
    direct.send(0);
    direct.vpes.take_back(event).unwrap();
    let _event = direct.hand_over(&block, 0, virtual_lpi(1, 1));
    assert_eq!((direct.take(0), direct.take(1)), (vec![], vec![]));
    direct.send(0);
    assert_eq!(direct.take(1), [8193]);
}

#[test]
fn take_back_keeps_other_virtual_lpis_of_a_resident_vpe() {
    let (direct, block, event) = Direct::with_event();
    let _other = direct.hand_over(&block, 1, virtual_lpi(0, 1));
    direct.send(1);
    direct.vpes.take_back(event).unwrap();
    assert_eq!(direct.take(0), [8193]);
    direct.send(1);
    assert_eq!(direct.take(0), [8193]);
}

#[test]
fn a_refused_hand_over_restores_the_physical_lpi() {
    let direct = Direct::with(Hardware { refuses_vmapti: true, ..hardware() });
    let block = direct.map();
    let result = direct.vpes.hand_over(lpi(&block, 0), virtual_lpi(0, 0));
    assert!(matches!(result, Err(ItsError::Fault(_))));
    direct.setup.send(lpi(&block, 0));
    assert_eq!(direct.setup.take(0), [lpi(&block, 0).get()]);
}

#[test]
fn only_mapped_events_and_lpis_in_range_are_handed_over() {
    let direct = Direct::new();
    let block = direct.map();
    let beyond = virtual_lpi(0, (1 << ID_BITS) - 8192);
    let other = Lpi::from_index(100).unwrap();
    let refused = |lpi, to| direct.vpes.hand_over(lpi, to).unwrap_err();
    assert_eq!(refused(lpi(&block, 0), beyond), ItsError::NotMapped(beyond.lpi));
    assert_eq!(direct.vpes.configure(beyond.lpi, ENABLED), Err(ItsError::NotMapped(beyond.lpi)));
    assert_eq!(refused(other, virtual_lpi(0, 0)), ItsError::NotMapped(other));
    assert!(direct.vpes.hand_over(lpi(&block, 0), virtual_lpi(VPES, 0)).is_err());
    assert!(direct.setup.send(lpi(&block, 0)).is_some());
}

#[test]
fn dropping_a_set_of_vpes_frees_it() {
    let setup = setup(hardware(), VPES);
    let before = setup.board.in_memory(|memory| memory.live_regions());
    for _ in 0..2 {
        let set = vpes(&setup).unwrap();
        assert!(vpes(&setup).is_err(), "the table has two entries");
        set.load(0, Cpu::new(1)).unwrap();
        drop(set);
        assert!(setup.board.world().memory.vpes.is_empty());
        assert_eq!(setup.board.in_memory(|memory| memory.live_regions()), before);
    }
    assert_eq!(setup.its.faults().0, 0);
}

#[test]
fn take_over_evicts_vpes_of_a_previous_hypervisor() {
    let Direct { setup: left, vpes } = Direct::new();
    let left = mem::ManuallyDrop::new(left);
    let device = left.attach(5, 3);
    let block = left.map(&device, 3, 0);
    let _event = vpes.hand_over(lpi(&block, 0), virtual_lpi(0, 3)).unwrap();
    mem::forget((vpes, device));
    // The fake checks each driver's MAPDs on their own.
    left.board.world().its[0].mapped.clear();
    let is_resident = || left.board.world().redistributors.iter().any(|rd| rd.vlpi.is_resident);
    assert!(is_resident(), "no vPE is left");
    let setup = Setup::on(left.board.clone(), &config(0).with_if_enabled(IfEnabled::TakeOver));
    assert!(!is_resident(), "a vPE that was left is resident");
    (0..4).for_each(|cpu| setup.bring_up(cpu));
    let send = || setup.board.world().message(0, 5, 0);
    assert_eq!(send(), None, "no event is mapped");
    let device = setup.attach(5, 3);
    let block = setup.map(&device, 3, 0);
    assert_eq!(send(), Some((0, lpi(&block, 0).get())));
    assert_eq!(setup.board.world().memory.vpes[0].lpis.acknowledge(), [0_u32; 0]);
}

/// Two ITSes with these numbers, which move vPEs in these ways.
fn two(numbers: [u8; 2], vmovp: [bool; 2]) -> (Setup, Arc<Its<Board>>) {
    let its = [0, 1].map(|index| {
        let typer = hardware().typer.with_vmovp(vmovp[index]);
        Hardware { typer, number: numbers[index], ..hardware() }
    });
    let board = Board::with_its(its.to_vec(), 4).with_vlpi_frames();
    board.world().redistributors.iter_mut().for_each(|rd| rd.coherent = true);
    let setup = Setup::on(board, &config(0).with_vpes(8));
    let second = Arc::new(Its::new(setup.gic.clone(), &config(1).with_vpes(8)).unwrap());
    for cpu in 0..4 {
        setup.bring_up(cpu);
        second.cpu_on(Cpu::new(cpu)).unwrap();
    }
    (setup, second)
}

#[test]
fn a_vpe_receives_messages_from_several_itses() {
    for vmovp in [true, false] {
        let (setup, second) = two([0, 9], [vmovp; 2]);
        let before = setup.board.in_memory(|memory| memory.live_regions());
        let blocks = [(&setup.its, 5), (&second, 6)].map(|(its, device)| {
            let attached = its.attach(DeviceId::new(device), 1).unwrap();
            its.map_events(&attached, request(1, 0)).unwrap()
        });
        let sets = [vpes(&setup), vpes(&setup)];
        let [vpes, other] = sets.map(|set| set.unwrap().with_its(&second).unwrap());
        for index in 0..2 {
            vpes.configure(virtual_lpi(0, index).lpi, ENABLED).unwrap();
        }
        let mut events = [0, 1].map(|its| {
            vpes.hand_over(lpi(&blocks[its], 0), virtual_lpi(0, u32::from(its == 1))).unwrap()
        });
        let send = |its| setup.board.world().message(its, if its == 0 { 5 } else { 6 }, 0);
        let take = |vpe: usize| setup.board.world().memory.vpes[vpe].lpis.acknowledge();
        for cpu in [3, 3, 0, 1] {
            vpes.load(0, Cpu::new(cpu)).unwrap();
            (0..2).for_each(|its| _ = send(its));
            assert_eq!(take(0), [8192, 8193]);
            vpes.put(0).unwrap();
            other.load(1, Cpu::new(cpu)).unwrap();
            other.put(1).unwrap();
        }
        vpes.load(1, Cpu::new(3)).unwrap();
        send(1);
        vpes.move_event(&mut events[1], 1).unwrap();
        assert_eq!(take(1), [8193]);
        for (its, event) in events.into_iter().enumerate() {
            send(its);
            vpes.take_back(event).unwrap();
            assert_eq!(send(its), Some((0, lpi(&blocks[its], 0).get())));
        }
        drop((vpes, other));
        assert!(setup.board.world().memory.vpes.is_empty());
        for (its, block) in [&setup.its, &second].into_iter().zip(blocks) {
            drop(block);
            assert_eq!(its.faults().0, 0);
        }
        let after = setup.board.in_memory(|memory| memory.live_regions());
        assert_eq!(after, before + 2, "the devices' translation tables are left");
    }
}

#[test]
fn itses_that_cannot_share_vpes_are_refused() {
    for (numbers, vmovp) in [([1, 1], [false; 2]), ([0, 1], [true, false])] {
        let (setup, second) = two(numbers, vmovp);
        let before = setup.board.in_memory(|memory| memory.live_regions());
        assert!(vpes(&setup).unwrap().with_its(&second).is_err());
        assert_eq!(setup.board.in_memory(|memory| memory.live_regions()), before);
    }
    let (setup, second) = two([0, 1], [false; 2]);
    assert!(vpes(&setup).unwrap().with_its(&setup.its).is_err());
    // The sets' vPEs have different numbers, which the fake checks.
    let _first = VpeSet::new(second.clone(), ID_BITS, &[Cpu::new(1); 6]).unwrap();
    assert!(vpes(&setup).unwrap().with_its(&second).is_ok());
    let _others = vpes(&setup).unwrap();
    assert!(vpes(&setup).is_err(), "the table has eight entries");
}

#[test]
fn machines_without_gicv4_refuse_vpes() {
    let lacking = |typer: Typer| Hardware { typer, ..hardware() };
    let v4 = hardware().typer;
    assert!(vpes(&setup(lacking(v4.with_virtual_lpis(false)), 8)).is_err());
    assert!(vpes(&setup(lacking(v4.with_vmapp(true)), 8)).is_err());
    assert!(vpes(&setup(hardware(), 0)).is_err());
    let without_frames = Setup::with_config(hardware(), &config(0).with_vpes(8));
    assert!(vpes(&without_frames).is_err());
    let wide = VpeSet::new(setup(hardware(), 8).its, ID_BITS + 1, &[Cpu::new(0)]);
    assert!(matches!(wide, Err(ItsError::Fault(_))));
}
