//! The operations, by name.

use super::counter::Counter;
use crate::list_registers::{end_all, interface, pending};
use crate::model::{
    EventMapping, GicSize, MeasuredGic, NOTHING, NoKick, REDISTRIBUTORS, map_event, take,
};
use crate::probe::Fallible;
use crate::{dispatch, model};
use gic_arch::icc::{self, SysRegEncoding};
use gic_arch::its::{CollectionId, Command, RdBase};
use gic_arch::{gicd, gicr};
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::{Change, GsiSpace, Inputs, Route, Router, Routing, Sender};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, EventId, Line, MsiMessage, SetLine};
use std::hint::black_box;
use std::sync::Arc;
use vgic::{AccessWidth, ListRegisterVcpu, Sleep, Vcpu, VirtualInterface};

/// Prepares an operation, and counts its repetitions.
type Case = fn(&mut Counter) -> Fallible<()>;

/// Each operation with its name.
pub(super) const CASES: &[(&str, Case)] = &[
    ("message-pending", |counter| pending_message(counter, |_| {})),
    ("message-pending-slowed", |counter| pending_message(counter, slow_down)),
    ("message-fresh", |counter| fresh_messages(counter, Part::Message)),
    ("message-dropped", |counter| {
        let (gic, _vcpus) = mapped(EventMapping::new(1, 1))?;
        counter.count(REPEATS, || repeat(|| gic.send(7, 0)));
        Ok(())
    }),
    ("message-to-sleeper", |counter| sleeper(counter, Part::Message)),
    ("sleep-and-return", |counter| sleeper(counter, Part::Rest)),
    ("message-by-msix", by_msix),
    ("message-by-gsi", by_gsi),
    ("take-lpi-of-several", |counter| fresh_messages(counter, Part::Rest)),
    ("take-lpi", take_one_lpi),
    ("iar1-none", |counter| {
        let (_gic, mut vcpus) = mapped(EventMapping::new(1, 6))?;
        count_reads(counter, first(&mut vcpus)?, icc::IAR1.encoding());
        Ok(())
    }),
    ("take-sgi", |counter| take_wired(counter, Wired::Sgi, Part::Rest)),
    ("take-spi", |counter| take_wired(counter, Wired::Spi, Part::Rest)),
    ("spi-pulse", |counter| take_wired(counter, Wired::Spi, Part::Message)),
    ("sgi-to-one-of-2", |counter| send_sgis(counter, 2, SGI_TO_SECOND)),
    ("sgi-to-one-of-512", |counter| send_sgis(counter, 512, SGI_TO_SECOND)),
    ("sgi-to-63-others", |counter| send_sgis(counter, 64, SGI_TO_OTHERS)),
    ("sgi-to-511-others", |counter| send_sgis(counter, 512, SGI_TO_OTHERS)),
    ("pmr-read", |counter| {
        let (_gic, mut vcpus) = mapped(EventMapping::new(1, 6))?;
        count_reads(counter, first(&mut vcpus)?, icc::PMR.encoding());
        Ok(())
    }),
    ("pmr-write", |counter| {
        let (_gic, mut vcpus) = mapped(EventMapping::new(1, 6))?;
        let vcpu = first(&mut vcpus)?;
        counter.count(REPEATS, || repeat(|| vcpu.write_sysreg(icc::PMR.encoding(), 0xf0)));
        Ok(())
    }),
    ("enter-0", |counter| enter_and_exit(counter, 0, Part::Message)),
    ("enter-1", |counter| enter_and_exit(counter, 1, Part::Message)),
    ("enter-4", |counter| enter_and_exit(counter, 4, Part::Message)),
    ("enter-16", |counter| enter_and_exit(counter, 16, Part::Message)),
    ("exit-0", |counter| enter_and_exit(counter, 0, Part::Rest)),
    ("exit-1", |counter| enter_and_exit(counter, 1, Part::Rest)),
    ("exit-4", |counter| enter_and_exit(counter, 4, Part::Rest)),
    ("read-iidr", |counter| read(counter, gicd::IIDR.offset())),
    ("read-typer", |counter| read(counter, gicd::TYPER.offset())),
    ("read-isenabler", |counter| read(counter, ISENABLER1)),
    ("read-ipriorityr", |counter| read(counter, IPRIORITYR8)),
    ("read-ispendr0", |counter| {
        let (gic, _vcpus) = mapped(EventMapping::new(1, 6))?;
        count_frame_reads(counter, &gic, REDISTRIBUTORS + ISPENDR0);
        Ok(())
    }),
    ("write-isenabler", |counter| {
        let (gic, vcpus) = mapped(EventMapping::new(1, 6))?;
        enable_wired(&gic, &vcpus)?;
        let address = gic.gic.config().distributor + u64::from(ISENABLER1);
        counter.count(REPEATS, || repeat(|| gic.gic.write(address, AccessWidth::Word, 1 << 8)));
        Ok(())
    }),
    ("write-invlpir", |counter| {
        let (gic, _vcpus) = mapped(EventMapping::new(1, 6))?;
        let address = REDISTRIBUTORS + u64::from(gicr::INVLPIR.offset());
        counter.count(REPEATS, || repeat(|| gic.gic.write(address, AccessWidth::Double, 8192)));
        Ok(())
    }),
    ("command-int", |counter| {
        commands(counter, |at| Command::Int { device: DEVICE, event: EventId::new(at % BATCH) })
    }),
    ("command-inv", |counter| {
        commands(counter, |at| Command::Inv { device: DEVICE, event: EventId::new(at % BATCH) })
    }),
    ("command-sync", |counter| {
        commands(counter, |_| Command::Sync { target: RdBase::from_processor_number(0) })
    }),
    // The same mapping again would change nothing.
    ("command-mapti", |counter| {
        commands(counter, |at| map_event(0, at % BATCH, 8192 + at % (2 * BATCH), 0))
    }),
    ("restore-lpi", |counter| restore(counter, 1)),
    ("restore-lpi-of-4-cpus", |counter| restore(counter, 4)),
    ("dispatch", |counter| {
        let mut probe = dispatch::probe()?;
        let mut outcome = Ok(0.0);
        counter.count(dispatch::REPEATS, || outcome = (probe.sample)());
        outcome.map(drop)
    }),
];

const REPEATS: u32 = 1024;
/// Number of events in a batch of messages that aren't pending.
const BATCH: u32 = 64;
const DEVICE: DeviceId = DeviceId::new(0);
const SPI: u32 = 40;
const SGI: u32 = 1;
/// Values of `ICC_SGI1R_EL1` that send [`SGI`].
const SGI_TO_SECOND: u64 = 1 << 24 | 2;
const SGI_TO_OTHERS: u64 = 1 << 40 | 1 << 24;
const ISENABLER1: u32 = 0x104;
const IPRIORITYR8: u32 = 0x420;
/// Offset of a redistributor's second frame.
const SGI_FRAME: u64 = 0x1_0000;
const ISPENDR0: u64 = SGI_FRAME + 0x200;

/// The part of a round that is counted. The other part runs uncounted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Signaling the interrupt, or entering the guest.
    Message,
    /// Taking the interrupt, or exiting from the guest.
    Rest,
}

#[derive(Clone, Copy)]
enum Wired {
    Sgi,
    Spi,
}

fn mapped(mapping: EventMapping) -> Fallible<(MeasuredGic, Vec<Vcpu>)> {
    MeasuredGic::mapped(mapping, 1, Arc::new(NoKick))
}

fn first(vcpus: &mut [Vcpu]) -> Fallible<&mut Vcpu> {
    Ok(vcpus.first_mut().ok_or("no vCPU")?)
}

#[inline]
fn repeat<R>(mut operation: impl FnMut() -> R) {
    for _ in 0..REPEATS {
        black_box(operation());
    }
}

/// Runs `operation`, which performs `count` operations, counted if this is the part to count.
fn part(counter: &mut Counter, is_counted: bool, count: u32, mut operation: impl FnMut()) {
    if is_counted { counter.count(count, operation) } else { operation() }
}

/// Adds instructions to a message: the judge must notice a cost of a twentieth.
#[inline]
fn slow_down(number: u32) {
    black_box(black_box(number).wrapping_add(black_box(1)));
}

fn pending_message(counter: &mut Counter, also: impl Fn(u32)) -> Fallible<()> {
    let (gic, _vcpus) = mapped(EventMapping::new(1, 1))?;
    gic.send(0, 0);
    counter.count(REPEATS, || {
        repeat(|| {
            also(1);
            gic.send(0, 0)
        });
    });
    Ok(())
}

/// Sends messages to 64 events, and takes the LPIs.
fn fresh_messages(counter: &mut Counter, wanted: Part) -> Fallible<()> {
    let (gic, mut vcpus) = mapped(EventMapping::new(1, 6))?;
    let vcpu = first(&mut vcpus)?;
    for _ in 0..REPEATS / BATCH {
        part(counter, wanted == Part::Message, BATCH, || {
            for event in 0..BATCH {
                black_box(gic.send(0, event));
            }
        });
        part(counter, wanted == Part::Rest, BATCH, || {
            for _ in 0..BATCH {
                black_box(take(vcpu));
            }
        });
        expect_no_interrupt(vcpu)?;
    }
    Ok(())
}

fn expect_no_interrupt(vcpu: &mut Vcpu) -> Fallible<()> {
    if take(vcpu) == NOTHING { Ok(()) } else { Err("an interrupt is left".into()) }
}

fn take_one_lpi(counter: &mut Counter) -> Fallible<()> {
    let (gic, mut vcpus) = mapped(EventMapping::new(1, 6))?;
    let vcpu = first(&mut vcpus)?;
    for round in 0..REPEATS {
        gic.send(0, round % BATCH);
        let mut taken = NOTHING;
        counter.count(1, || taken = take(vcpu));
        if taken == NOTHING {
            return Err("no LPI was pending".into());
        }
    }
    Ok(())
}

/// Sends a message to a vCPU that has prepared to sleep.
fn sleeper(counter: &mut Counter, wanted: Part) -> Fallible<()> {
    let (gic, mut vcpus) = mapped(EventMapping::new(1, 1))?;
    let vcpu = first(&mut vcpus)?;
    for _ in 0..REPEATS {
        let mut asleep = Sleep::DontSleep;
        part(counter, wanted == Part::Rest, 1, || {
            asleep = vcpu.prepare_to_sleep();
            if wanted == Part::Rest {
                vcpu.returned();
            }
        });
        if asleep != Sleep::Ready {
            return Err("the vCPU does not sleep".into());
        }
        if wanted == Part::Message {
            counter.count(1, || _ = black_box(gic.send(0, 0)));
            vcpu.returned();
            take(vcpu);
        }
    }
    Ok(())
}

fn router(gic: &MeasuredGic) -> Fallible<(Arc<Router>, MsiMessage)> {
    let its = gic.gic.its(0).ok_or("no ITS")?;
    let inputs = Inputs::new(gic.gic.clone()).with_its(its);
    let router = Router::new(GsiSpace::default(), inputs)?;
    let address = gic.gic.config().its.first().ok_or("no ITS")?.doorbell();
    Ok((Arc::new(router), MsiMessage { address, data: 0 }))
}

fn by_msix(counter: &mut Counter) -> Fallible<()> {
    let (gic, _vcpus) = mapped(EventMapping::new(1, 1))?;
    let (router, message) = router(&gic)?;
    let table = MsixTable::new(1, Sender::Device(DEVICE), router)?;
    table.write_control(Control::new().with_enable(true));
    table.write(0, &message.address.to_le_bytes());
    table.write(8, &0u64.to_le_bytes());
    if table.signal(0) != Signaled::Sent(Delivery::Pending) {
        return Err("the vector does not send".into());
    }
    counter.count(REPEATS, || repeat(|| table.signal(0)));
    Ok(())
}

fn by_gsi(counter: &mut Counter) -> Fallible<()> {
    let (gic, _vcpus) = mapped(EventMapping::new(1, 1))?;
    let (router, message) = router(&gic)?;
    let gsi = router.allocate()?;
    let route = Change::Set(gsi, Route::to_its(DEVICE, message));
    router.commit(&[route])?;
    if router.signal(gsi) != Ok(Delivery::Pending) {
        return Err("the GSI does not send".into());
    }
    counter.count(REPEATS, || repeat(|| router.signal(gsi)));
    Ok(())
}

fn count_reads(counter: &mut Counter, vcpu: &mut Vcpu, register: SysRegEncoding) {
    counter.count(REPEATS, || repeat(|| vcpu.read_sysreg(register)));
}

/// Enables [`SGI`] at each vCPU, and [`SPI`] as an edge-triggered interrupt at the first.
fn enable_wired(gic: &MeasuredGic, vcpus: &[Vcpu]) -> Fallible<()> {
    let word = |address, value| gic.gic.write_until_done(address, AccessWidth::Word, value);
    for (_, number) in vcpus.iter().zip(0..) {
        let sgis = model::redistributor(number) + SGI_FRAME;
        word(sgis + 0x80, u32::MAX.into())?;
        word(sgis + 0x100, 1 << SGI)?;
    }
    let gicd = gic.gic.config().distributor;
    word(gicd + 0x84, u32::MAX.into())?;
    word(gicd + u64::from(ISENABLER1), 1 << (SPI % 32))?;
    Ok(word(gicd + 0xc08, 2 << (2 * (SPI % 16)))?)
}

/// Signals a wired interrupt and takes it.
fn take_wired(counter: &mut Counter, wired: Wired, wanted: Part) -> Fallible<()> {
    let (gic, mut vcpus) = mapped(EventMapping::new(1, 6))?;
    enable_wired(&gic, &vcpus)?;
    let [vcpu, other, ..] = vcpus.as_mut_slice() else { return Err("one vCPU".into()) };
    for _ in 0..REPEATS {
        part(counter, wanted == Part::Message, 1, || match wired {
            Wired::Sgi => _ = other.write_sysreg(icc::SGI1R.encoding(), 1 << 24 | 1),
            Wired::Spi => _ = black_box(gic.gic.pulse(Line::Spi(SPI))),
        });
        let mut taken = NOTHING;
        part(counter, wanted == Part::Rest, 1, || taken = take(vcpu));
        let expected = match wired {
            Wired::Sgi => SGI,
            Wired::Spi => SPI,
        };
        if taken != u64::from(expected) {
            return Err(format!("INTID {taken} was taken").into());
        }
    }
    Ok(())
}

/// Sends SGIs from the first of `count` vCPUs. All targets take them.
fn send_sgis(counter: &mut Counter, count: u16, value: u64) -> Fallible<()> {
    let size = GicSize { vcpus: count, budget: 4096, lpi_id_bits: 16 };
    let (gic, mut vcpus) = MeasuredGic::booted(size, Arc::new(NoKick))?;
    enable_wired(&gic, &vcpus)?;
    let (from, others) = vcpus.split_first_mut().ok_or("no vCPU")?;
    for _ in 0..16 {
        counter.count(1, || _ = black_box(from.write_sysreg(icc::SGI1R.encoding(), value)));
        let taken = others.iter_mut().filter_map(|other| Some(take(other)).filter(|id| *id == 1));
        let expected = if value == SGI_TO_OTHERS { usize::from(count) - 1 } else { 1 };
        if taken.count() != expected {
            return Err("an SGI was not delivered".into());
        }
    }
    Ok(())
}

/// Enters and exits the guest with `listed` LPIs, which the guest ends.
fn enter_and_exit(counter: &mut Counter, listed: u32, wanted: Part) -> Fallible<()> {
    let (gic, vcpus) = mapped(EventMapping::new(1, 4))?;
    let vcpu = vcpus.into_iter().next().ok_or("no vCPU")?;
    let mut vcpu = vcpu.with_list_registers(interface())?;
    // The first rounds leave the state that later rounds find.
    for round in 0..16 + REPEATS / 4 {
        for event in 0..listed {
            gic.send(0, (event + round) % 16);
        }
        let is_counted = |of| round >= 16 && wanted == of;
        part(counter, is_counted(Part::Message), 1, || _ = black_box(vcpu.enter().interface().hcr));
        let left = ended(&mut vcpu, listed)?;
        part(counter, is_counted(Part::Rest), 1, || {
            if let Some(guest) = vcpu.in_guest() {
                guest.exit(&left);
            }
        });
    }
    Ok(())
}

/// Returns the interface after the guest has ended the `listed` interrupts in list registers.
fn ended(vcpu: &mut ListRegisterVcpu, listed: u32) -> Fallible<VirtualInterface> {
    let mut left = *vcpu.in_guest().ok_or("not in the guest")?.interface();
    if pending(&left) != listed {
        return Err(format!("{listed} interrupts are not in list registers").into());
    }
    end_all(&mut left);
    Ok(left)
}

fn read(counter: &mut Counter, offset: u32) -> Fallible<()> {
    let (gic, _vcpus) = mapped(EventMapping::new(1, 6))?;
    count_frame_reads(counter, &gic, gic.gic.config().distributor + u64::from(offset));
    Ok(())
}

fn count_frame_reads(counter: &mut Counter, gic: &MeasuredGic, address: u64) {
    counter.count(REPEATS, || repeat(|| gic.gic.read(address, AccessWidth::Word)));
}

/// Restores many LPIs, of devices with 64 events each, into a new machine. Consecutive events of a
/// device target different vCPUs of the first `targets`.
fn restore(counter: &mut Counter, targets: u16) -> Fallible<()> {
    const DEVICES: u32 = 512;
    const EVENT_BITS: u8 = 6;
    let mapping = EventMapping::new(DEVICES, EVENT_BITS);
    let (gic, mut vcpus) = MeasuredGic::mapped(mapping, targets, Arc::new(NoKick))?;
    let (successor, mut successors) = gic.successor()?;
    let _paused: Vec<_> = vcpus.iter_mut().chain(&mut successors).map(Vcpu::pause).collect();
    let mut saved = gic.gic.save()?;
    let devices = saved.its.iter_mut().flat_map(|its| &mut its.devices);
    for (target, event) in (0..targets).cycle().zip(devices.flat_map(|device| &mut device.events)) {
        event.collection = CollectionId::new(target);
    }
    let mut outcome = Ok(());
    counter.count(DEVICES << EVENT_BITS, || outcome = successor.restore(&saved));
    Ok(outcome?)
}

/// Posts commands one by one.
fn commands(counter: &mut Counter, command: fn(u32) -> Command) -> Fallible<()> {
    let (mut gic, _vcpus) = mapped(EventMapping::new(1, 6))?;
    let mut outcome = Ok(());
    counter.count(REPEATS, || {
        outcome = (0..REPEATS).try_for_each(|at| gic.command(command(at)));
    });
    outcome
}
