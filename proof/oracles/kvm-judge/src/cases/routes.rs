//! Checks that GSIs on [`KvmRouter`] reach the same targets as messages and lines sent through
//! KVM's other interfaces.

use super::count::{Count, accept};
use irq_routing::kvm::{KvmConfig, KvmRouter, RustVmm};
use irq_routing::{Access, Change, Invalidation, Pin, Route, Routing, SignalError, TranslateMsi};
use kvm_judge::kvm::KvmMachine;
use kvm_judge::layout::{CPUS, ITS, LEVEL_LINE, SPECIAL};
use kvm_judge::scenario::{Guest, ItsPlan, Plan};
use kvm_judge::{Failure, Machine};
use msi_types::explain::{Fact, Unexamined};
use msi_types::{Delivery, DeviceId, EventId, Gsi, MsiMessage};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Maximum number of times that a case waits for an interrupt. Waiting is necessary because KVM
/// sends some eventfd messages from a separate thread.
const PATIENCE: u32 = 2000;
const SHORT: Duration = Duration::from_millis(1);

pub(super) fn run(count: &mut Count) {
    count.case("routes: without a table, a GSI is the pin of its number", identity());
    for seed in 0..2 {
        let plan = Plan::of(seed);
        count.case(
            &format!(
                "routes: every event of plan {seed} by a GSI and an eventfd, and its explanation"
            ),
            messages(&plan),
        );
    }
    count.case("routes: an eventfd behind an IOMMU follows the guest's mappings", translated());
    count.case("routes: an ITS takes no message without a DeviceID", anonymous());
    count.case("routes: a pin by GSI is an edge", pins());
    count.case("routes: a level is resampled at the end of interrupt", levels());
}

struct Booted {
    machine: KvmMachine,
    router: Arc<KvmRouter>,
    plan: Plan,
}

fn booted(plan: &Plan) -> Result<Booted, Failure> {
    booted_with(plan, |router| router)
}

fn booted_with(plan: &Plan, equip: impl FnOnce(KvmRouter) -> KvmRouter) -> Result<Booted, Failure> {
    let mut machine = KvmMachine::new()?;
    Guest::boot(&mut machine, plan)?;
    let router = KvmRouter::new(RustVmm(machine.vm()), KvmConfig::new(Pin::COUNT))?;
    let router = Arc::new(equip(router).with_explainer(Arc::new(machine.explainer()?)));
    Ok(Booted { machine, router, plan: plan.clone() })
}

/// An IOMMU that maps the page of [`IOVA`] to one page, or blocks all messages while that is 0.
#[derive(Default)]
struct Iommu(AtomicU64);

const IOVA: u64 = 0x5000;

impl TranslateMsi for Iommu {
    fn translate(&self, _: DeviceId, address: u64, _: Access) -> Option<u64> {
        let page = Some(self.0.load(SeqCst)).filter(|page| *page != 0)?;
        (address & !0xfff == IOVA).then_some(page | address & 0xfff)
    }
}

impl Booted {
    /// Acknowledges and ends the interrupts pending on all vCPUs, and returns them.
    fn take(&mut self) -> Result<Vec<u32>, Failure> {
        let mut taken = Vec::new();
        for cpu in 0..CPUS {
            let intid = self.machine.take(cpu)?;
            if !(SPECIAL..1024).contains(&intid) {
                self.machine.end(cpu, intid)?;
            }
            taken.push(intid);
        }
        Ok(taken)
    }

    /// Waits until the vCPUs have taken the expected interrupts.
    fn expect(&mut self, wanted: &[u32]) -> Result<(), Failure> {
        let mut taken = self.take()?;
        for _ in 0..PATIENCE {
            if taken == wanted {
                return Ok(());
            }
            accept(taken.iter().all(|intid| (SPECIAL..1024).contains(intid)), || {
                format!("{taken:?}, not {wanted:?}")
            })?;
            sleep(SHORT);
            taken = self.take()?;
        }
        Err(format!("no interrupt instead of {wanted:?}").into())
    }

    /// Returns an event of the first ITS whose LPI is enabled, and what the vCPUs take for it.
    fn enabled_event(&mut self) -> Result<(DeviceId, EventId, Vec<u32>), Failure> {
        for (device, event) in self.plan.its[0].events().collect::<Vec<_>>() {
            self.machine.signal(0, device, event)?;
            let taken = self.take()?;
            if taken.iter().any(|intid| *intid >= 8192) {
                return Ok((device, event, taken));
            }
        }
        Err("no event is enabled".into())
    }

    /// Returns one of the plan's edge-triggered SPIs, and its pin.
    fn wired(&self) -> Result<(u32, Pin), Failure> {
        let spi = self.plan.wired.first().ok_or("the plan has no SPI")?.intid;
        Ok((spi, Pin::of_spi(spi)?))
    }
}

fn eventfd() -> Result<EventFd, Failure> {
    Ok(EventFd::new(EFD_NONBLOCK)?)
}

fn identity() -> Result<(), Failure> {
    let mut booted = booted(&Plan::of(0))?;
    let (spi, pin) = booted.wired()?;
    let device = eventfd()?;
    let _bound = booted.router.bind(RustVmm(&device), Gsi::new(pin.get()))?;
    device.write(1)?;
    let taken = booted.take()?;
    accept(taken.contains(&spi), || format!("{taken:?}, not {spi}"))?;

    booted.router.commit(&[Change::Set(Gsi::new(900), Route::Pin(pin))])?;

    device.write(1)?;
    sleep(SHORT);
    let taken = booted.take()?;
    accept(!taken.contains(&spi), || "the first table did not end the pin's route".into())
}

fn messages(plan: &Plan) -> Result<(), Failure> {
    let mut booted = booted(plan)?;
    let of = |(its, plan): (usize, &ItsPlan)| {
        plan.events().map(move |(device, event)| (its, device, event)).collect::<Vec<_>>()
    };
    let events: Vec<_> = plan.its.iter().enumerate().flat_map(of).collect();
    let mut changes = Vec::new();
    for (its, device, event) in &events {
        let message = MsiMessage { address: ITS[*its] + 0x1_0040, data: event.get() };
        changes.push(Change::Set(booted.router.allocate()?, Route::to_its(*device, message)));
    }
    booted.router.commit(&changes)?;
    let mut arrived = 0;
    for ((its, device, event), change) in events.iter().zip(&changes) {
        let signaled = booted.machine.signal(*its, *device, *event)?;
        let explanation = booted.router.explain(change.gsi());
        let wanted = booted.take()?;
        let is_taken = wanted.iter().any(|intid| *intid >= 8192);
        let is_signaled = explanation.facts().any(|fact| matches!(fact, Fact::Signaled(_)));
        let is_examined = !explanation.unexamined().any(|of| of == Unexamined::KernelController);
        accept(is_examined && is_signaled == is_taken, || format!("{wanted:?}: {explanation}"))?;
        let routed = booted.router.signal(change.gsi()).unwrap_or(Delivery::NoDoorbell);
        accept(routed == signaled, || format!("{routed:?}, not {signaled:?}"))?;
        booted.expect(&wanted)?;
        let trigger = eventfd()?;
        let _bound = booted.router.bind(RustVmm(&trigger), change.gsi())?;
        trigger.write(1)?;
        booted.expect(&wanted)?;
        arrived += u32::from(is_taken);
    }
    println!("note - {arrived} of {} events arrived", events.len());
    accept(arrived > 0, || "no event is enabled".into())
}

fn translated() -> Result<(), Failure> {
    let iommu = Arc::new(Iommu::default());
    let mut booted = booted_with(&Plan::of(0), |router| router.with_translator(iommu.clone()))?;
    let (device, event, wanted) = booted.enabled_event()?;
    let trigger = eventfd()?;
    let gsi = booted.router.allocate()?;
    let message = MsiMessage { address: IOVA | 0x40, data: event.get() };
    booted.router.commit(&[Change::Set(gsi, Route::to_its(device, message))])?;
    let _bound = booted.router.bind(RustVmm(&trigger), gsi)?;
    for turn in 1..=3 {
        iommu.0.store(ITS[0] + 0x1_0000, SeqCst);
        booted.router.invalidate(&Invalidation::all())?;
        trigger.write(1)?;
        booted.expect(&wanted)?;

        iommu.0.store(0, SeqCst);
        booted.router.invalidate(&Invalidation::all())?;
        let signaled = booted.router.signal(gsi)?;
        trigger.write(1)?;
        sleep(SHORT);
        let taken = booted.take()?;
        let is_dropped = signaled == Delivery::Blocked && booted.router.dropped() == turn;
        let is_quiet = taken.iter().all(|intid| (SPECIAL..1024).contains(intid));
        accept(is_dropped && is_quiet, || {
            format!("{signaled:?}, {} dropped, {taken:?}", booted.router.dropped())
        })?;
    }
    Ok(())
}

fn anonymous() -> Result<(), Failure> {
    let booted = booted(&Plan::of(0))?;
    let event = booted.plan.its[0].devices[0].events[0].id;
    let gsi = booted.router.allocate()?;
    let message = MsiMessage { address: ITS[0] + 0x1_0040, data: event };
    booted.router.commit(&[Change::Set(gsi, Route::to_doorbell(message))])?;
    let signaled = booted.router.signal(gsi);
    accept(matches!(signaled, Err(SignalError::Refused { .. })), || format!("{signaled:?}"))
}

fn pins() -> Result<(), Failure> {
    let mut booted = booted(&Plan::of(0))?;
    let (spi, pin) = booted.wired()?;
    let gsi = booted.router.allocate()?;
    booted.router.commit(&[Change::Set(gsi, Route::Pin(pin))])?;
    booted.router.signal(gsi)?;
    let taken = booted.take()?;
    accept(taken.contains(&spi), || format!("{taken:?}, not {spi}"))?;
    let taken = booted.take()?;
    accept(!taken.contains(&spi), || "the interrupt arrived twice".into())
}

fn levels() -> Result<(), Failure> {
    let mut booted = booted(&Plan::of(0))?;
    let gsi = booted.router.allocate()?;
    booted.router.commit(&[Change::Set(gsi, Route::Pin(Pin::of_spi(LEVEL_LINE)?))])?;
    let (device, resample) = (eventfd()?, eventfd()?);
    let bound = booted.router.bind_level(RustVmm(&device), RustVmm(&resample), gsi)?;
    for _ in 0..3 {
        device.write(1)?;
        let intid = booted.machine.take(0)?;
        accept(intid == LEVEL_LINE, || format!("{intid}, not {LEVEL_LINE}"))?;
        accept(resample.read().is_err(), || {
            "the level was resampled before the guest ended the interrupt".into()
        })?;
        booted.machine.end(0, intid)?;
        accept(resample.read().is_ok(), || "the level was not resampled".into())?;
    }
    let taken = booted.take()?;
    accept(!taken.contains(&LEVEL_LINE), || {
        "the interrupt arrived although the device did not signal".into()
    })?;
    device.write(1)?;
    drop(bound);
    let taken = booted.take()?;
    accept(!taken.contains(&LEVEL_LINE), || "the line stayed high".into())
}
