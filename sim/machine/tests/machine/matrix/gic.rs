//! A GICv3 with one kind of doorbell, brought up from a description.

use super::board::{Built, CPUS, Driven, Root};
use super::cell::{BoardConfig, Endpoint, Parent};
use crate::board_trees;
use doorbell_hardware::bridge_msi::BridgeMsiKind;
use doorbell_hardware::hyperv::{HostMigration, HypervHost, MESSAGE_ADDRESS};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_hardware::ram::Ram;
use doorbell_machine::sequential::{CpuRegisters, GicCpus, GicHardware, silent_fault};
use doorbell_machine::{BuildOptions, LpiNumbers, Migration};
use gic_arch::IntId;
use gic_arch::icc::SysRegEncoding;
use gic_bringup::{Irqchip, Options};
use gic_driver::SystemRegisters;
use gic_firmware::{
    ConfigAccess, Controller, ControllerIndex, ControllerKind, Description, Fact, MsiRouting,
    Region, WiredInterrupt,
};
use hyperv_vpci::guest::{SpiDomain, Vectors};
use hyperv_vpci::host::Injection;
use irq_domain::Irq;
use msi_types::explain::Explanation;
use msi_types::{
    BlockRequest, Cpu, Fit, HwIrq, Initially, MsiParent, RequesterId, Rewrite, Trigger,
};
use std::num::NonZeroU16;
use std::sync::Arc;

/// Registers of a controller inside a host bridge, and the SPI that it raises.
pub(super) const BRIDGE: u64 = 0x3800_0000;
pub(super) const BRIDGE_SPI: u32 = 100;
/// SPIs that a virtual bus may use.
const FIRST_SPI: u32 = 64;
const SPIS: NonZeroU16 = NonZeroU16::new(64).expect("64 is not zero");
/// Requester ID for a trial allocation that checks whether all vectors are free.
const NOBODY: RequesterId = RequesterId::new(0xff);

/// Returns the options for a machine with the minimum number of LPIs, because a migration visits
/// every direct LPI.
fn options() -> BuildOptions {
    BuildOptions { lpis: LpiNumbers::Few, ..BuildOptions::default() }
}

/// Creates a GIC whose only doorbells are of this `kind`.
pub(super) fn hardware(kind: Parent, ram: Arc<Ram>) -> Built<GicHardware> {
    Ok(GicHardware::described(&description(kind), &options(), ram)?)
}

/// Creates the host end of a virtual bus, if the board has one. The host end migrates whenever the
/// GIC does.
pub(super) fn hyperv(plan: &BoardConfig, gic: &GicHardware) -> Built<Option<Arc<HypervHost>>> {
    let migration = match plan.migration {
        Migration::Never => HostMigration::Never,
        Migration::AtRandom { .. } => HostMigration::InFlight,
    };
    let host = (plan.parent == Parent::HypervSpi).then(|| {
        HypervHost::new(Injection::Spi(gic.lines()), CPUS, &Endpoint::functions(), migration)
    });
    Ok(host.transpose()?)
}

/// Returns firmware's description of the GIC, and of a host bridge whose requester IDs equal their
/// DeviceIDs.
fn description(kind: Parent) -> Description {
    let mut board = board_trees::bare(u8::try_from(CPUS).unwrap(), 0);
    let controller = match kind {
        Parent::Its => ControllerKind::Its,
        Parent::DirectLpi => ControllerKind::DirectLpi,
        Parent::Mbi => ControllerKind::Mbi,
        Parent::V2m => ControllerKind::V2m,
        Parent::Bridge(kind) => return bridged(board, kind),
        Parent::HypervSpi | Parent::X86Vector => ControllerKind::Other("hyperv-vpci".to_owned()),
    };
    let mut controller = board_trees::controller(controller, 0, 0);
    if kind == Parent::HypervSpi {
        controller.registers = Region::new(MESSAGE_ADDRESS, 0x1000).map(Fact::stated);
    }
    board.controllers = vec![controller];
    board.hosts = vec![board_trees::host(0, board_trees::parent(0))];
    board
}

/// Adds a host bridge with a controller of its own to a board.
fn bridged(mut board: Description, kind: BridgeMsiKind) -> Description {
    let registers = board_trees::region(BRIDGE, 0x1000);
    let (name, kind, config) = match kind {
        BridgeMsiKind::ImsiRx => ("fsl,imx8mp-pcie", ControllerKind::ImsiRx, BRIDGE + 0x10_0000),
        BridgeMsiKind::MediatekGen3 => {
            ("mediatek,mt8192-pcie", ControllerKind::MediatekGen3, BRIDGE)
        }
    };
    let mut bridge = board_trees::host(0, MsiRouting::default());
    let config = board_trees::region(config, 0x1000);
    bridge.compatible = vec![name.to_owned()];
    bridge.config = Some(Fact::stated(ConfigAccess::Registers(config)));
    bridge.own_controller = Some(ControllerIndex::new(0));
    let line = WiredInterrupt { intid: IntId::new(BRIDGE_SPI), trigger: Trigger::Level };
    board.controllers = vec![Controller {
        lines: vec![Fact::stated(line)],
        ..Controller::new(bridge.id.clone(), kind, Some(registers))
    }];
    board.hosts = vec![bridge];
    board
}

/// Powers on the GIC and brings up its drivers on all CPUs.
pub(super) fn drive(
    plan: &BoardConfig,
    gic: GicHardware,
    hyperv: Option<Arc<HypervHost>>,
    platform: &Arc<MachinePlatform>,
) -> Built<Driven> {
    let description = description(plan.parent);
    let cpus = gic.power_on(plan.migration, platform);
    let options = Options::default().with_surroundings(plan.surroundings());
    let host = Arc::clone(platform) as _;
    let irqchip = Irqchip::with(Arc::clone(platform), host, description, &options)?;
    for cpu in irqchip.cpus() {
        let on = cpus.execute(cpu, |registers| irqchip.cpu_on(cpu, registers, |_| ()));
        on.ok_or("the CPU does not exist")??;
    }
    let interrupts = irqchip.interrupts().clone();
    cpus.serve(&interrupts);
    let parent: Arc<dyn MsiParent> = if let Some(host) = &hyperv {
        let domain = SpiDomain::new(irqchip.gic().wired(), Arc::clone(platform) as _)?;
        host.open(platform, Vectors::Spis(Arc::new(domain)))?
    } else {
        let host = irqchip.description().hosts.first().ok_or("no host bridge")?;
        irqchip.pci_parent(host, Endpoint::PciMsix.requester())?
    };
    let root = GicRoot { cpus, irqchip, hyperv, parent: Arc::clone(&parent) };
    Ok(Driven { root: Box::new(root), parent, interrupts })
}

struct GicRoot {
    cpus: GicCpus,
    irqchip: Irqchip<MachinePlatform>,
    hyperv: Option<Arc<HypervHost>>,
    parent: Arc<dyn MsiParent>,
}

impl GicRoot {
    fn kept_lpis(&self) -> Option<String> {
        let lpis = self.irqchip.gic().v3()?.lpis().ok()?;
        let used = lpis.count() - lpis.available();
        (used != 0).then(|| format!("{used} LPIs"))
    }

    /// Describes the SPIs that a virtual bus has not released.
    fn claimed_spis(&self) -> Option<String> {
        let (wired, first) = (self.irqchip.gic().wired(), HwIrq::new(FIRST_SPI));
        let claimed = wired.claim(first, SPIS).map(|()| wired.release(first, SPIS));
        claimed.err().map(|error| format!("SPIs ({error})"))
    }

    /// Describes the SPIs that are still allocated. Returns `None` if all of them can be allocated.
    fn kept_spis(&self, count: u32) -> Option<String> {
        let count = u16::try_from(count).ok().and_then(NonZeroU16::new)?;
        let request = BlockRequest::new(count, Fit::new(Rewrite::Masked), Cpu::new(0))
            .with_initially(Initially::Masked);
        let spis = &self.parent;
        let all = spis.attach(NOBODY, count.get().into()).and_then(|attachment| {
            let block = spis.allocate(&attachment, &request);
            let block = block.map(|block| spis.free(&attachment, block));
            spis.detach(attachment);
            block
        });
        all.err().map(|error| format!("SPIs ({error})"))
    }
}

impl Root for GicRoot {
    fn settle(&self) {
        self.cpus.settle();
    }

    fn strays(&self) -> u64 {
        self.cpus.unhandled()
    }

    fn kept(&self) -> Option<String> {
        let spis = self.irqchip.controllers().find_map(|(_, driver)| driver.spis());
        match (&self.hyperv, spis) {
            (Some(host), _) => host.kept().or_else(|| self.claimed_spis()),
            (None, Some(count)) => self.kept_spis(count),
            (None, None) => self.kept_lpis(),
        }
    }

    fn migrated(&self) -> Result<u64, String> {
        self.cpus.migrated()
    }

    fn take_some(&self) -> bool {
        self.cpus.take(8)
    }

    fn explain(&self, irq: Irq) -> Option<Explanation> {
        let cpu = Cpu::new(0);
        self.cpus.execute(cpu, |registers| self.irqchip.explain(irq, cpu, registers))?
    }

    fn system(&self, register: SysRegEncoding, value: Option<u64>) -> u64 {
        let access = |registers: &CpuRegisters<'_>| match value {
            Some(value) => {
                registers.write_raw(register, value);
                value
            }
            None => registers.read_raw(register),
        };
        self.cpus.execute(Cpu::new(0), access).unwrap()
    }

    fn silent_fault(&self) -> Option<String> {
        let host = self.hyperv.as_ref().and_then(|host| host.migrated_in_flight().err());
        silent_fault(&self.irqchip).or(host)
    }
}
