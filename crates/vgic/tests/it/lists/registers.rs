//! Tests for wired interrupts in list registers, which `tests/model` does not cover: traps,
//! maintenance, overflow, and register writes that complete at the exit.

use super::entered::{Entered, enter};
use doorbell_test_support::guest::{Field, Hardware, Machine, listed, vtr};
use gic_arch::gicd::Irouter;
use gic_arch::icc::{self, Sgi, SysRegEncoding};
use gic_arch::ich::ListRegisterState::{Active, Pending};
use gic_arch::ich::Vtr;
use gic_arch::{Affinity, gicd, gicr};
use msi_types::{Cpu, Level, Line, LineObserver, SetLine};
use std::sync::{Arc, Mutex};
use vgic::{RefusedVcpu, SecurityView, VgicConfig, VirtualInterfaceMismatch};

const SPI: u32 = 40;

fn machine() -> Machine {
    let machine = Machine::running(VgicConfig::new(1));
    for spi in SPI..SPI + 8 {
        machine.enable_spi(spi);
    }
    machine
}

fn set_priority(machine: &Machine, spi: u32, priority: u32) {
    machine.set_field(0, Field::Priority, spi, priority);
}

/// Records the deactivated lines.
#[derive(Default)]
struct Observer(Mutex<Vec<Line>>);

impl LineObserver for Observer {
    fn deactivated(&self, line: Line) {
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn a_line_still_high_is_relisted_after_maintenance() {
    let mut machine = machine();
    let observer = Arc::new(Observer::default());
    machine.gic.observe_lines(observer.clone()).unwrap();
    machine.raise(SPI);
    let (inside, mut hardware) = enter(machine.list_register_vcpu());
    assert!(hardware.registers.list[0].eoi());
    assert_eq!(hardware.acknowledge(1), SPI);
    assert!(!hardware.asks_for_maintenance());

    hardware.end(1, SPI);

    assert!(hardware.misr().eoi());
    assert_eq!(hardware.eisr(), 1);
    let (_inside, hardware) = inside.again(&hardware);
    assert_eq!(*observer.0.lock().unwrap(), [Line::Spi(SPI)]);
    assert_eq!(listed(&hardware.registers), [(SPI, Pending)]);
}

/// Lets the guest of vCPU 0 acknowledge an edge-triggered SPI that may be routed to any PE if `any`
/// is set, calls `change`, then pulses the line again.
fn pulsed_while_active(any: bool, change: impl FnOnce(&Machine)) -> (Machine, Entered, Hardware) {
    let mut machine = Machine::running(VgicConfig::new(2).with_one_of_n(true));
    machine.enable_spi(SPI);
    machine.make_edge(SPI);
    let route = Irouter::to(machine.gic.config().cpus[0].affinity).with_any_participating(any);
    machine.route(SPI, route);
    machine.gic.pulse(Line::Spi(SPI));
    let (inside, mut hardware) = enter(machine.list_register_vcpu());
    assert_eq!(hardware.acknowledge(1), SPI);
    change(&machine);
    machine.gic.pulse(Line::Spi(SPI));
    let (inside, hardware) = inside.again(&hardware);
    (machine, inside, hardware)
}

#[test]
fn an_edge_of_a_moved_interrupt_waits_for_its_handler() {
    let moves = |machine: &Machine| machine.route_to(SPI, 1);
    let declines = |machine: &Machine| {
        machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new().with_dpg1_ns(true));
    };
    for (any, change) in [(false, &moves as &dyn Fn(&Machine)), (true, &declines)] {
        let (mut machine, inside, mut hardware) = pulsed_while_active(any, change);
        assert_eq!(listed(&hardware.registers), [(SPI, Active)]);
        assert!(!hardware.asks_for_maintenance());

        hardware.end(1, SPI);

        assert!(hardware.asks_for_maintenance(), "the vCPU must exit");
        let (_inside, hardware) = inside.again(&hardware);
        assert_eq!(listed(&hardware.registers), []);
        assert_eq!(listed(&enter(machine.list_register_vcpu()).1.registers), [(SPI, Pending)]);
    }
}

#[test]
fn more_than_16_pending_interrupts_set_npie() {
    let mut machine = Machine::running(VgicConfig::new(1));
    for spi in 32..72 {
        machine.enable_spi(spi);
        machine.raise(spi);
    }
    let mut vcpu = machine.vcpus.remove(0).with_list_registers(vtr(16, 5)).unwrap();
    let inside = vcpu.enter();
    let registers = inside.interface();
    assert_eq!(listed(registers), (32..48).map(|spi| (spi, Pending)).collect::<Vec<_>>());
    assert!(registers.hcr.npie());
}

#[test]
fn icc_dir_is_trapped_by_tdir_or_by_tc_while_spis_are_unlisted() {
    for (tds, active, expected) in [
        (true, 0, (true, false)),
        (true, 2, (true, false)),
        (false, 0, (false, false)),
        (false, 2, (false, true)),
    ] {
        let mut machine = machine();
        let vcpu = machine.vcpus.remove(0);
        for spi in SPI..SPI + active {
            machine.set_bit(gicd::ISACTIVER, spi);
        }
        let mut vcpu = vcpu.with_list_registers(vtr(1, 5).with_tds(tds)).unwrap();
        let inside = vcpu.enter();
        let hcr = inside.interface().hcr;
        assert_eq!((hcr.tdir(), hcr.tc()), expected);
    }
}

#[test]
fn a_write_that_affects_a_listed_spi_completes_at_the_exit() {
    const CHANGES: [fn(&Machine); 4] = [
        |machine| machine.set_bit(gicd::ICENABLER, SPI),
        |machine| set_priority(machine, SPI, 0x80),
        |machine| machine.write_gicd(gicd::CTLR, gicd::Ctlr::new()),
        |machine| machine.route(SPI, Irouter::to(Affinity::new(9, 9, 9, 9))),
    ];
    for change in CHANGES {
        let mut machine = machine();
        machine.raise(SPI);
        let (inside, hardware) = enter(machine.list_register_vcpu());
        let pending = |machine: &Machine| machine.read_gicd(gicd::CTLR) >> 31;
        assert_eq!(pending(&machine), 0);

        change(&machine);

        assert_eq!((machine.kicks.of(0), pending(&machine)), (1, 1));
        let _vcpu = inside.exit(&hardware.registers);
        assert_eq!(pending(&machine), 0);
    }
}

#[test]
fn a_vcpu_in_its_guest_sends_sgis() {
    let mut machine = Machine::running(VgicConfig::new(2));
    for cpu in 0..2 {
        for sgi in [3, 4, 5] {
            machine.enable_private(cpu, sgi);
        }
    }
    let affinities = [0, 1].map(|cpu: usize| machine.gic.config().cpus[cpu].affinity);
    let (mut sender, _) = enter(machine.list_register_vcpu());
    let (receiver, hardware) = enter(machine.list_register_vcpu());
    let mut send = |register: SysRegEncoding, sgi, cpu: usize| {
        sender.write_sgi(register, Sgi::to(sgi, affinities[cpu]).into_bits())
    };

    send(icc::SGI1R.encoding(), 3, 1).unwrap();
    send(icc::SGI0R.encoding(), 5, 1).unwrap();

    assert_eq!([machine.kicks.of(0), machine.kicks.of(1)], [0, 1]);
    let (_receiver, hardware) = receiver.again(&hardware);
    assert_eq!(
        listed(&hardware.registers),
        [(3, Pending)],
        "the other interrupt's group is not a target"
    );
    send(icc::SGI1R.encoding(), 4, 0).unwrap();
    assert_eq!(machine.kicks.of(0), 1, "a vCPU must be kicked for an SGI to itself");
    assert!(send(icc::EOIR1.encoding(), 4, 0).is_err());
}

#[test]
fn a_mismatched_virtual_interface_is_refused() {
    let refused = |config: VgicConfig, vtr: Vtr| {
        Machine::new(config).vcpus.remove(0).with_list_registers(vtr).unwrap_err().mismatch
    };
    let machine = VgicConfig::new(1);
    let mismatch = VirtualInterfaceMismatch::PriorityBits { machine: 5, hardware: 6 };
    assert_eq!(refused(machine.clone(), vtr(4, 6)), mismatch);
    let preemption = vtr(4, 5).with_pre_bits_minus_one(5);
    let mismatch = VirtualInterfaceMismatch::PreemptionBits { machine: 5, hardware: 6 };
    assert_eq!(refused(machine.clone(), preemption), mismatch);
    let secure = machine.clone().with_security(SecurityView::NonSecure);
    assert_eq!(refused(secure, vtr(4, 5)), VirtualInterfaceMismatch::SecurityView);
    let wide = machine.clone().with_lpi_id_bits(Some(17));
    assert_eq!(refused(wide, vtr(4, 5)), VirtualInterfaceMismatch::IdBits(17));
    let many = vtr(4, 5).with_list_regs_minus_one(16);
    assert_eq!(refused(machine, many), VirtualInterfaceMismatch::Count(17));
}

#[test]
fn a_vcpu_refused_by_one_interface_works_with_another() {
    let mut machine = machine();
    let vcpu = machine.vcpus.remove(0);
    let RefusedVcpu { mut vcpu, mismatch, .. } = vcpu.with_list_registers(vtr(4, 6)).unwrap_err();
    assert_eq!(mismatch, VirtualInterfaceMismatch::PriorityBits { machine: 5, hardware: 6 });
    machine.raise(SPI);
    assert!(vcpu.enter_guest().irq, "the software interface signals the interrupt");
    let (_inside, hardware) = enter(vcpu.with_list_registers(vtr(4, 5)).unwrap());
    assert_eq!(listed(&hardware.registers), [(SPI, Pending)]);
}

#[test]
fn children_asleep_is_set_once_the_vcpu_exits() {
    let mut machine = machine();
    machine.raise(SPI);
    let (inside, hardware) = enter(machine.list_register_vcpu());
    let waker = |machine: &Machine| machine.read_gicr(0, gicr::WAKER);

    machine.write_gicr(0, gicr::WAKER, gicr::Waker::new().with_processor_sleep(true));

    assert_eq!((machine.kicks.of(0), waker(&machine)), (1, 0b010));
    let _vcpu = inside.exit(&hardware.registers);
    assert_eq!(waker(&machine), 0b110);
}

#[test]
fn a_pending_write_sets_rwp_only_in_the_frame_it_was_written_to() {
    let mut machine = Machine::running(VgicConfig::new(2));
    machine.enable_spi(SPI);
    machine.route_to(SPI, 1);
    machine.raise(SPI);
    let vcpu = machine.vcpus.remove(1).with_list_registers(vtr(4, 5)).unwrap();
    let (inside, hardware) = enter(vcpu);
    let distributor = |machine: &Machine| {
        let control = u32::try_from(machine.read_gicd(gicd::CTLR)).unwrap();
        gicd::Ctlr::from(control).rwp()
    };
    let redistributor = |machine: &Machine, cpu| {
        let control = u32::try_from(machine.read_gicr(cpu, gicr::CTLR)).unwrap();
        gicr::Ctlr::from(control).rwp()
    };

    machine.set_bit(gicd::ICENABLER, SPI);

    assert!(distributor(&machine));
    for cpu in [0, 1] {
        assert!(!redistributor(&machine, cpu), "redistributor {cpu}");
        assert_eq!(machine.read_gicr(cpu, gicr::SYNCR), 0, "redistributor {cpu}");
    }
    let vcpu = inside.exit(&hardware.registers);
    assert!(!distributor(&machine));

    machine.enable_private(1, 27);
    machine.gic.set_line(Line::Ppi { cpu: Cpu::new(1), intid: 27 }, Level::High);
    let (inside, hardware) = enter(vcpu);
    machine.set_field(1, Field::Disable, 27, 1);

    assert!(redistributor(&machine, 1) && !redistributor(&machine, 0));
    assert!(!distributor(&machine));
    let _vcpu = inside.exit(&hardware.registers);
    assert!(!redistributor(&machine, 1));
}

#[test]
fn loaded_interface_registers_match_the_manual() {
    let mut machine = machine();
    machine.msr(0, icc::CTLR.encoding(), 0b11);
    machine.msr(0, icc::BPR0.encoding(), 4);
    machine.msr(0, icc::AP1R0.encoding(), 1 << 31);
    machine.msr(0, icc::PMR.encoding(), 0xf0);
    machine.make_edge(SPI + 1);
    for (spi, priority) in [(SPI, 0x88), (SPI + 1, 0x90), (SPI + 2, 0x98)] {
        set_priority(&machine, spi, priority);
        machine.raise(spi);
    }

    let mut vcpu = machine.vcpus.remove(0).with_list_registers(vtr(2, 5)).unwrap();
    let inside = vcpu.enter();
    let registers = inside.interface();

    // Bits 0, 3, 7 and 14 are En, NPIE, VGrp1DIE and TDIR.
    assert_eq!(registers.hcr.into_bits(), 1 | 1 << 3 | 1 << 7 | 1 << 14);
    // The fields, from bit 1 upwards, are VENG1, VFIQEn, VCBPR, VEOIM, VBPR1, VBPR0 and VPMR.
    assert_eq!(
        registers.vmcr.into_bits(),
        1 << 1 | 1 << 3 | 1 << 4 | 1 << 9 | 3 << 18 | 4 << 21 | 0xf0 << 24
    );
    assert_eq!(registers.active_priorities, [[0; 4], [1 << 31, 0, 0, 0]]);
    let list = registers.list.map(gic_arch::ich::ListRegister::into_bits);
    // A level-sensitive interrupt requests a maintenance interrupt at its EOI; an edge-triggered
    // interrupt does not.
    assert_eq!(list[0], 1 << 62 | 1 << 60 | 0x88 << 48 | 1 << 41 | u64::from(SPI));
    assert_eq!(list[1], 1 << 62 | 1 << 60 | 0x90 << 48 | u64::from(SPI + 1));
    assert_eq!(list[2..], [0; 14]);
}

#[test]
fn shows_listed_state_is_true_for_pending_and_active_registers() {
    let machine = Machine::running(VgicConfig::new(2));
    let config = machine.gic.config();
    let region = &config.redistributors[0];
    let (distributor, second) = (config.distributor, region.base + region.stride);
    let shows = |address: u64| machine.gic.shows_listed_state(address);
    for at in [0x200, 0x203, 0x284, 0x300, 0x3fc, 0x1600, 0x1a04] {
        assert!(shows(distributor + at), "GICD + {at:#x}");
    }
    for at in [0x1_0200, 0x1_0280, 0x1_0300, 0x1_0383] {
        assert!(shows(second + at), "GICR + {at:#x}");
    }
    for address in [distributor, distributor + 0x1fc, distributor + 0x400, second + 0x200, 0] {
        assert!(!shows(address), "{address:#x}");
    }
}
