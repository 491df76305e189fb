//! Tests a VMM whose kick handler and line observer access the model. The model must not hold a
//! lock when it calls them.

use doorbell_test_support::guest::{Field, ITS, Machine, RAM, mapc, mapd, mapti};
use gic_arch::gits;
use gic_arch::icc::{self, Sgi};
use gic_arch::its::{CollectionId, Command};
use gic_arch::lpi::Config;
use gic_arch::{Priority, gicd, gicr};
use msi_types::{Cpu, DeviceId, EventId, Kick, Level, Line, LineObserver, SetLine};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread;
use std::time::Duration;
use vgic::AccessWidth::{Double, Word};
use vgic::its::ItsConfig;
use vgic::{GuestMemory, Vgic, VgicConfig};

const CONFIGURATION: u64 = RAM + 0x4_0000;
const PENDING: u64 = RAM + 0x6_0000;
const LPI: u32 = 8192;
const SPI: u32 = 40;

/// Kick handler and line observer that calls into each part of the model that has a lock.
#[derive(Default)]
struct Busybody {
    gic: OnceLock<Weak<Vgic>>,
    calls: AtomicUsize,
}

impl Busybody {
    fn use_the_model(&self) {
        let gic = self.gic.get().and_then(Weak::upgrade).unwrap();
        let redistributor = gic.config().redistributors[0].base;
        gic.read(ITS + u64::from(gits::CREADR.offset()), Double).unwrap();
        gic.read(ITS + u64::from(gits::CTLR.offset()), Word).unwrap();
        gic.write_until_done(redistributor + u64::from(gicr::INVLPIR.offset()), Double, LPI.into())
            .unwrap();
        gic.read(redistributor + u64::from(gicr::PROPBASER.offset()), Double).unwrap();
        gic.write_until_done(gic.config().distributor + u64::from(gicd::CTLR.offset()), Word, 3)
            .unwrap();
        gic.set_line(Line::Spi(SPI + 1), Level::Low);
        _ = gic.poll();
        gic.events().drain(drop);
        self.calls.fetch_add(1, SeqCst);
    }
}

impl Kick for Busybody {
    fn kick(&self, _: Cpu) {
        self.use_the_model();
    }
}

impl LineObserver for Busybody {
    fn deactivated(&self, _: Line) {
        self.use_the_model();
    }
}

fn machine(busybody: &Arc<Busybody>) -> Machine {
    let config = VgicConfig::new(2)
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(ITS)])
        .with_message_based_spis(true)
        .with_redistributor_invalidation(true);
    let mut machine = Machine::kicking(config, busybody.clone());
    busybody.gic.set(Arc::downgrade(&machine.gic)).unwrap();
    machine.gic.observe_lines(busybody.clone()).unwrap();
    machine.start();
    machine.enable_spi(SPI);
    for cpu in [0, 1] {
        machine.enable_private(cpu, 3);
    }
    configure(&machine, true);
    machine.enable_lpis(16, CONFIGURATION, PENDING);
    machine.start_its();
    machine.run([mapc(0, 0), mapd(1, 1, 0), mapti(1, 0, LPI, 0)]);
    machine
}

fn configure(machine: &Machine, enable: bool) {
    let config = Config::new().with_enable(enable).with_priority(Priority::new(0xa0));
    machine.ram.write(CONFIGURATION, &[config.into_bits()]).unwrap();
}

/// Prepares the machine, puts vCPU 0 to sleep, and checks that `act` kicks vCPU 0 and returns.
fn kicks(prepare: fn(&mut Machine), act: fn(&mut Machine)) {
    let (ended, waits) = mpsc::channel();
    thread::spawn(move || {
        let busybody = Arc::new(Busybody::default());
        let mut machine = machine(&busybody);
        prepare(&mut machine);
        assert_eq!(machine.vcpus[0].prepare_to_sleep(), vgic::Sleep::Ready);
        act(&mut machine);
        ended.send(busybody.calls.load(SeqCst)).unwrap();
    });
    assert_eq!(waits.recv_timeout(Duration::from_secs(30)), Ok(1), "one kick, without a lock");
}

const INT: Command = Command::Int { device: DeviceId::new(1), event: EventId::new(0) };
const INV: Command = Command::Inv { device: DeviceId::new(1), event: EventId::new(0) };
const INVALL: Command = Command::Invall { collection: CollectionId::new(0) };

fn nothing(_: &mut Machine) {}

/// Makes the event's LPI pending while it is disabled. The configuration table then enables the
/// LPI, but the cached configuration still disables it.
fn pending_and_disabled(machine: &mut Machine) {
    configure(machine, false);
    machine.run([INV, INT]);
    configure(machine, true);
}

#[test]
fn no_lock_is_held_while_an_its_command_kicks() {
    kicks(nothing, |machine| machine.run([INT]));
    kicks(pending_and_disabled, |machine| machine.run([INV]));
    kicks(pending_and_disabled, |machine| machine.run([INVALL]));
}

#[test]
fn no_lock_is_held_while_a_redistributor_write_kicks() {
    kicks(pending_and_disabled, |machine| machine.write_gicr(0, gicr::INVLPIR, LPI.into()));
    kicks(pending_and_disabled, |machine| machine.write_gicr(0, gicr::INVALLR, 0));
    kicks(
        |machine| {
            machine.run([INT]);
            machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new());
        },
        |machine| machine.write_gicr(0, gicr::CTLR, gicr::Ctlr::new().with_enable_lpis(true)),
    );
    kicks(nothing, |machine| machine.set_field(0, Field::Pend, 3, 1));
}

#[test]
fn no_lock_is_held_while_lines_and_messages_kick() {
    kicks(nothing, |machine| machine.raise(SPI));
    kicks(nothing, |machine| machine.write_gicd(gicd::SETSPI_NSR, SPI));
    kicks(nothing, |machine| machine.set_bit(gicd::ISPENDR, SPI));
    kicks(
        |machine| {
            machine.write_gicd(gicd::CTLR, gicd::Ctlr::new());
            machine.raise(SPI);
        },
        |machine| machine.write_gicd(gicd::CTLR, gicd::Ctlr::from(3)),
    );
}

#[test]
fn no_lock_is_held_while_another_vcpus_sgi_kicks() {
    kicks(nothing, |machine| {
        let sgi = Sgi::to(3, machine.gic.config().cpus[0].affinity);
        machine.msr(1, icc::SGI1R.encoding(), sgi.into_bits());
    });
}

#[test]
fn no_lock_is_held_while_a_restore_kicks() {
    kicks(nothing, |machine| {
        let mut saved = machine.save();
        saved.its[0].devices[0].events[0].pending = true;
        machine.restore(&saved);
    });
}

#[test]
fn no_lock_is_held_while_line_observers_are_called() {
    kicks(nothing, |machine| {
        machine.vcpus[0].returned();
        machine.raise(SPI);
        assert_eq!(machine.acknowledge(0), u64::from(SPI));
        machine.end(0, SPI.into());
    });
}
