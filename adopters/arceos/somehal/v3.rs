//! ArceOS's GICv3 on `gic-driver`. Replaces `somehal`'s file of the same name.

mod platform;

use alloc::{format, sync::Arc, vec};
use core::num::NonZeroU16;

use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{ID_AA64PFR0_EL1, Readable};
use arm_gic_driver::{fdt_parse_irq_config, v3::Trigger};
use gic_driver::cpu_interface::{Acknowledged, EoiMode};
use gic_driver::gic_arch::{IntId, SgiId};
use gic_driver::lpi::PendingLpis;
use gic_driver::msi_types::{self, Cpu, HwIrq, MsiError, WiredParent};
use gic_driver::sysreg::CpuRegisters;
use gic_driver::{Gic, GicConfig, GicCpuInterface, PhysicalRegion, RedistributorRegion, Route};
use irq_framework::{IrqError, IrqId};
use kernutil::StaticCell;
use rdif_intc::{ControllerIrqTranslation, DriverGeneric, Intc, Interface, IrqTranslation};
use rdrive::{module_driver, probe::OnProbeError, register::ProbeFdt};

pub(super) use platform::ArceOs;

/// EOI mode. A hypervisor ends an interrupt before its guest deactivates it.
#[cfg(feature = "hv")]
type Mode = gic_driver::cpu_interface::SplitEoi;
#[cfg(not(feature = "hv"))]
type Mode = gic_driver::cpu_interface::CombinedEoi;
type CpuInterface = gic_driver::CpuInterface<CpuRegisters, Mode>;

static GIC: StaticCell<Arc<Gic<ArceOs>>> = StaticCell::uninit();

module_driver!(
    name: "GICv3",
    level: ProbeLevel::PreKernel,
    priority: ProbePriority::INTC,
    probe_kinds: &[
        ProbeKind::Fdt {
            compatibles: &["arm,gic-v3"],
            on_probe: probe_gic
        }
    ],
);

fn probe_gic(probe: ProbeFdt<'_>) -> Result<(), OnProbeError> {
    let (info, dev) = probe.into_parts();
    let mut regs = info.node.regs().into_iter();
    let (Some(distributor), Some(redistributors)) = (regs.next(), regs.next()) else {
        return Err(OnProbeError::other(format!("[{}] has no reg", info.node.name())));
    };
    let region = PhysicalRegion {
        base: redistributors.address,
        bytes: redistributors.size.unwrap_or(0x2_0000),
    };
    let cpus = (0..someboot::smp::cpu_count()).filter_map(platform::affinity).collect();
    let config = GicConfig::new(distributor.address, vec![RedistributorRegion::new(region)], cpus)
        .with_distributor_bytes(distributor.size);
    let gic = Gic::new(Arc::new(ArceOs), config)
        .map_err(|error| OnProbeError::other(format!("{error}")))?;
    GIC.init(Arc::new(gic));
    super::set_backend(super::GicBackend::V3);
    init_cpu(someboot::smp::early_current_cpu_idx());

    let domain = crate::irq::alloc_irq_domain(
        dev.descriptor.device_id(),
        crate::irq::IrqDomainKind::AArch64Gic,
    )
    .map_err(|err| OnProbeError::other(format!("failed to register GICv3 domain: {err:?}")))?;
    dev.register(Intc::new(domain, Controller));
    if let Err(error) = super::its::probe_gic_messages(&info, &dev) {
        warn!("[{}] has no messages: {error}", info.node.name());
    }
    Ok(())
}

/// The GIC as a device of ArceOS.
struct Controller;

impl DriverGeneric for Controller {
    fn name(&self) -> &str {
        "gic-driver: GICv3"
    }
}

impl Interface for Controller {
    fn translate_fdt(&self, cells: &[u32]) -> Result<ControllerIrqTranslation, IrqError> {
        let config = fdt_parse_irq_config(cells).map_err(|_| IrqError::InvalidIrq)?;
        let hwirq = rdif_intc::HwIrq(config.id.to_u32());
        Ok(ControllerIrqTranslation::with_trigger(hwirq, config.trigger.into()))
    }

    fn configure(&mut self, translation: &IrqTranslation) -> Result<(), IrqError> {
        let hwirq = HwIrq::new(translation.id.hwirq.0);
        // ArceOS lets several drivers share an interrupt.
        match GIC.claim(hwirq, NonZeroU16::MIN) {
            Ok(()) | Err(MsiError::InUse(_)) => {}
            Err(error) => return Err(irq_error(error)),
        }
        let trigger = translation.trigger.unwrap_or(rdif_intc::Trigger::LevelHigh);
        irq_set_trigger(translation.id, trigger.into())
    }

    fn set_enabled(&mut self, hwirq: rdif_intc::HwIrq, enabled: bool) -> Result<(), IrqError> {
        set_enabled(HwIrq::new(hwirq.0), enabled)
    }
}

/// Returns the GIC, once its node has been probed.
pub(super) fn gic() -> Option<&'static Arc<Gic<ArceOs>>> {
    GIC.is_init().then(|| &*GIC)
}

/// Converts a driver's error to ArceOS's.
pub(super) fn irq_error(error: MsiError) -> IrqError {
    warn!("{error}");
    match error {
        MsiError::NoMemory(_) | MsiError::NoVectors { .. } | MsiError::DeviceFull { .. } => {
            IrqError::NoMemory
        }
        MsiError::NotReachable(..) => IrqError::CpuOffline,
        MsiError::UnknownVector(_) => IrqError::InvalidIrq,
        MsiError::InUse(_) => IrqError::Busy,
        MsiError::Controller(_) => IrqError::Controller,
        _ => IrqError::Unsupported,
    }
}

/// Returns `true` if this CPU has the system registers of a GICv3's CPU interface.
pub fn is_support_icc() -> bool {
    ID_AA64PFR0_EL1.get() >> 24 & 0xf != 0
}

/// An acknowledged interrupt. Dropping it completes the interrupt.
pub struct ActiveIrq {
    intid: IntId,
    state: Option<State>,
}

enum State {
    Acknowledged(Acknowledged),
    Ended(<Mode as EoiMode>::Ended),
}

impl ActiveIrq {
    pub fn id(&self) -> rdrive::IrqId {
        self.intid.hwirq().index().into()
    }

    pub fn acknowledge_ipi(&mut self) {
        if cfg!(feature = "hv") {
            self.end();
        }
    }

    fn end(&mut self) {
        self.state = self.state.take().map(|state| match state {
            State::Acknowledged(acknowledged) => {
                State::Ended(GIC.end(&cpu_interface(), acknowledged))
            }
            ended => ended,
        });
    }
}

impl Drop for ActiveIrq {
    fn drop(&mut self) {
        self.end();
        if let Some(State::Ended(ended)) = self.state.take() {
            GicCpuInterface::deactivate(&cpu_interface(), ended);
        }
    }
}

pub fn begin_irq() -> Option<ActiveIrq> {
    let acknowledged = cpu_interface().acknowledge()?;
    Some(ActiveIrq { intid: acknowledged.intid(), state: Some(State::Acknowledged(acknowledged)) })
}

pub fn irq_set_enable(irq: IrqId, enable: bool) -> Result<(), IrqError> {
    if irq.hwirq.0 >= super::its::LPI_INTID_BASE {
        super::its::set_lpi_enabled(HwIrq::new(irq.hwirq.0), enable)
    } else {
        set_enabled(HwIrq::new(irq.hwirq.0), enable)
    }
}

fn set_enabled(hwirq: HwIrq, enable: bool) -> Result<(), IrqError> {
    GIC.interrupt(hwirq.into()).map_err(|_| IrqError::InvalidIrq)?;
    if enable {
        GIC.unmask(hwirq)
    } else {
        GIC.mask(hwirq)
    }
    Ok(())
}

pub fn irq_set_trigger(irq: IrqId, trigger: Trigger) -> Result<(), IrqError> {
    if irq.hwirq.0 >= super::its::LPI_INTID_BASE {
        return Err(IrqError::Unsupported);
    }
    let trigger = match trigger {
        Trigger::Edge => msi_types::Trigger::Edge,
        Trigger::Level => msi_types::Trigger::Level,
    };
    GIC.set_trigger(HwIrq::new(irq.hwirq.0), trigger).map_err(irq_error)
}

pub fn irq_set_affinity(irq: IrqId, affinity: crate::irq::IrqAffinity) -> Result<(), IrqError> {
    let cpu = match affinity {
        crate::irq::IrqAffinity::Any => None,
        crate::irq::IrqAffinity::Fixed { cpu_id } => Some(Cpu::new(cpu_id as u32)),
    };
    let hwirq = HwIrq::new(irq.hwirq.0);
    match cpu {
        _ if hwirq.get() >= super::its::LPI_INTID_BASE => super::its::set_lpi_affinity(hwirq, cpu),
        Some(cpu) => GIC.set_target(hwirq, cpu).map_err(irq_error),
        None => {
            let any = GIC.distributor().set_route(hwirq.into(), Route::AnyParticipating);
            any.map_err(|_| IrqError::Unsupported)
        }
    }
}

pub fn send_ipi(raw: usize, target: crate::irq::IpiTarget) -> Result<(), IrqError> {
    let sgi = u8::try_from(raw).ok().and_then(SgiId::new).ok_or(IrqError::InvalidIrq)?;
    let cpu = match target {
        crate::irq::IpiTarget::Current => someboot::smp::early_current_cpu_idx(),
        crate::irq::IpiTarget::Cpu(cpu) => cpu.0,
    };
    let affinity = platform::affinity(cpu).ok_or(IrqError::InvalidCpu)?;
    barrier::dsb(barrier::ISHST);
    cpu_interface().send(sgi, affinity).map_err(|_| IrqError::InvalidCpu)
}

/// Turns on the calling CPU at the GIC, and at the ITS if it has been probed.
pub fn init_cpu(cpu: usize) {
    let cpu = Cpu::new(cpu as u32);
    let Some(gic) = gic() else {
        return warn!("CPU {cpu} has no GICv3");
    };
    match gic.cpu_on_with::<_, Mode>(cpu, &registers()) {
        Ok(attached) => {
            super::its::cpu_on(cpu, attached.map_or(PendingLpis::Kept, |it| it.pending))
        }
        Err(error) => warn!("CPU {cpu}: {error}"),
    }
}

fn cpu_interface() -> CpuInterface {
    CpuInterface::new(registers())
}

fn registers() -> CpuRegisters {
    // SAFETY: ArceOS runs at EL1 or above, and uses this file only on CPUs whose devicetree has a
    // GICv3. Its vectors handle interrupts.
    unsafe { CpuRegisters::new() }
}
