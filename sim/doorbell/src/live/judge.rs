//! Finds the obstacles that keep a function's interrupts from being handled.

use super::functions::{Function, Message};
use super::irqs::{self, Irq};
use super::system::{Placement, System, belongs_to};
use crate::explain;
use doorbell_inspection::requesters::may_have_its_own;
use gic_firmware::{Controller, ControllerKind, NoRoute, Route};
use msi_types::explain::{Explanation, Fact, Obstacle, SetupFault};
use msi_types::{Cpu, DeviceId, HwIrq, Level, MsiMessage};

/// Mechanism through which Linux receives a function's interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    Msix,
    Msi,
    Intx,
    None,
}

/// A function, the system that it belongs to, and its position in this system.
#[derive(Debug)]
pub(super) struct Subject<'s> {
    pub(super) system: &'s System,
    pub(super) function: &'s Function,
    pub(super) placement: Placement<'s>,
}

impl Subject<'_> {
    pub(super) fn mode(&self) -> Mode {
        match self.function.messages.first() {
            Some(Message { is_msix: true, .. }) => Mode::Msix,
            Some(_) => Mode::Msi,
            None if self.wired().is_some() => Mode::Intx,
            None => Mode::None,
        }
    }

    /// Returns Linux's number and the state of the wired interrupt that the function's driver uses.
    /// Other devices may share the interrupt.
    fn wired(&self) -> Option<(u32, &Irq)> {
        let number = self.function.irq?;
        // The handler of a vfio driver is named after the function.
        let name = self.function.has_vfio_driver().then(|| self.function.address.to_string());
        let is_own = |action: &String| name.as_ref().is_none_or(|name| action.contains(name));
        let irq = self.system.irqs.get(&number).filter(|irq| irq.handlers.iter().any(is_own))?;
        let has_line = self.function.config.has_pin() && self.function.driver.is_some();
        (has_line && self.function.messages.is_empty()).then_some((number, irq))
    }

    /// Returns Linux's numbers of the function's interrupts, and their states if Linux lists them.
    pub(super) fn interrupts(&self) -> Vec<(u32, Option<&Irq>)> {
        let wired = self.wired().map(|(number, irq)| (number, Some(irq)));
        let messages = self.function.messages.iter();
        let messages = messages.map(|message| (message.irq, self.system.irqs.get(&message.irq)));
        messages.chain(wired).collect()
    }

    /// Returns the MSI controller that firmware names for the function, even if the controller is
    /// disabled.
    pub(super) fn named_controller(&self) -> Option<&Controller> {
        let index = match self.placement.route? {
            Ok(route) => route.controller,
            Err(NoRoute::Disabled(index) | NoRoute::NoDeviceId(index)) => index,
            Err(_) => return None,
        };
        self.system.description().controller(index)
    }

    /// Returns the MSI controller and the DeviceID that firmware assigns to the function.
    pub(super) fn route(&self) -> Option<(Route, &Controller)> {
        let route = self.placement.route?.ok()?;
        Some((route, self.system.description().controller(route.controller)?))
    }

    /// Returns the DeviceID that Linux assumes for a function without an entry in firmware's map.
    /// Linux lets such a function use the MSI controller of the bridge above it, if any.
    pub(super) fn assumed_device_id(&self) -> Option<DeviceId> {
        match self.placement.route? {
            Err(NoRoute::Unmapped(requester)) if !self.function.messages.is_empty() => {
                Some(DeviceId::new(requester.get()))
            }
            _ => None,
        }
    }

    /// Explains each of the function's interrupts.
    pub(super) fn explanations(&self) -> Vec<Explanation> {
        if self.function.messages.is_empty() {
            return self.wired().map(|(number, irq)| self.line(number, irq)).into_iter().collect();
        }
        (0..)
            .zip(&self.function.messages)
            .map(|(slot, message)| self.message(slot, *message))
            .collect()
    }

    /// Explains the function as a whole. If Linux set up no interrupts or no messages for the
    /// function, returns the reason, unless only an interrupt has a fault. Otherwise, returns the
    /// explanation of the interrupt that stops at the earliest stage, and prefers faults.
    pub(super) fn explanation(&self, of_interrupts: &[Explanation]) -> Explanation {
        let has_fault = |one: &Explanation| one.obstacles().any(is_fault);
        let stage = |explanation: &&Explanation| {
            let stage = explanation.obstacle().map_or(usize::MAX, |one| one.stage() as usize);
            (!has_fault(explanation), stage)
        };
        let first = of_interrupts.iter().min_by_key(stage).copied().unwrap_or_default();
        let whole = self.setup_fault().map(stopped);
        whole.filter(|whole| has_fault(whole) || !has_fault(&first)).unwrap_or(first)
    }

    /// Returns why a function has no interrupts, or why it uses INTx although it supports MSI or
    /// MSI-X.
    fn setup_fault(&self) -> Option<SetupFault> {
        if !self.function.messages.is_empty() {
            return None;
        }
        if self.function.driver.is_none() {
            return Some(SetupFault::NoDriver);
        }
        let can_send = self.function.has_messages() != Some(false);
        let fallback = if can_send { self.fallback() } else { None };
        fallback.or_else(|| match self.mode() {
            Mode::None if !can_send && !self.function.config.has_pin() => {
                Some(SetupFault::NoCapability)
            }
            Mode::None if self.function.has_vfio_driver() => Some(SetupFault::NoProgram),
            Mode::None => Some(SetupFault::NotAllocated),
            _ => {
                let is_used = |controller| self.system.uses(controller) == Some(true);
                let may_send = self.function.has_messages() == Some(true)
                    && self.route().is_some_and(|(_, controller)| is_used(controller));
                may_send.then_some(SetupFault::MessagesUnused)
            }
        })
    }

    /// Returns the reason why Linux allocated no MSI or MSI-X vectors for a function.
    fn fallback(&self) -> Option<SetupFault> {
        let requester = self.placement.requester;
        if self.system.options.no_messages {
            return Some(SetupFault::TurnedOff);
        }
        let route = match self.placement.route? {
            Err(NoRoute::NotDescribed) if self.host_may_have_its_own() => return None,
            Err(why) => {
                return Some(explain::fault(self.system.description(), why, Some(requester)));
            }
            Ok(route) => route,
        };
        let controller = self.system.description().controller(route.controller)?;
        // A bridge's own attribute concerns the functions below it.
        let function = self.function.config.secondary_bus().is_none().then_some(self.function);
        let mut concerned = self.placement.bridges.iter().copied().chain(function);
        if concerned.any(|function| !function.permits_messages) {
            return Some(SetupFault::Forbidden);
        }
        let is_its = controller.kind == ControllerKind::Its;
        if is_its && self.system.options.no_lpis {
            return Some(SetupFault::LpisTurnedOff);
        }
        let device = route.device_id;
        if let Some(room) = self.system.room(controller).filter(|room| *room <= device.get().into())
        {
            return Some(SetupFault::BeyondTable { device, room });
        }
        (self.system.uses(controller) == Some(false)).then_some(SetupFault::ControllerUnused)
    }

    /// Returns `true` if firmware names no MSI controller for the function, whose host bridge may
    /// have one of its own.
    pub(super) fn host_may_have_its_own(&self) -> bool {
        self.placement.host.is_some_and(may_have_its_own)
    }

    /// Explains a wired interrupt.
    fn line(&self, number: u32, irq: &Irq) -> Explanation {
        let config = &self.function.config;
        if config.command().is_some_and(|command| command.intx_disable) {
            return stopped(SetupFault::IntxDisabled);
        }
        let level = config.intx_status().map(|high| if high { Level::High } else { Level::Low });
        let input = irq.intid().map(|intid| Fact::Input(HwIrq::new(intid)));
        let explanation = Explanation::new().with_facts(&[level.map(Fact::Line), input]);
        explanation.merge(self.target(irq)).merge(handler(number, irq))
    }

    /// Explains the interrupt of an MSI or MSI-X vector.
    fn message(&self, slot: u16, Message { irq: number, .. }: Message) -> Explanation {
        let endpoint = self.endpoint(slot);
        if endpoint.obstacle() == Some(Obstacle::Absent) {
            return endpoint;
        }
        let explanation = endpoint.merge(self.bus());
        let Some(irq) = self.system.irqs.get(&number) else {
            return explanation.with_obstacle(Obstacle::NotRequested);
        };
        let used = explanation.merge(self.target(irq)).merge(handler(number, irq));
        // The checks of doorbell and DeviceID take it as a sign that no message has arrived, but a
        // function that is not in use sends none.
        if used.obstacles().all(is_fault) {
            used.merge(self.doorbell(irq)).merge(self.translation())
        } else {
            used
        }
    }

    fn endpoint(&self, slot: u16) -> Explanation {
        let config = &self.function.config;
        if config.is_gone() {
            return Explanation::stopped(Obstacle::Absent);
        }
        if self.mode() == Mode::Msix {
            return match config.msix() {
                Some(control) if !control.enable() => {
                    Explanation::stopped(Obstacle::MessagesDisabled)
                }
                Some(control) if control.function_mask() => {
                    Explanation::stopped(Obstacle::FunctionMasked)
                }
                _ => Explanation::new(),
            };
        }
        let Some(msi) = config.msi() else { return Explanation::new() };
        let bit = |bits: u32| bits.checked_shr(slot.into()).is_some_and(|bits| bits & 1 == 1);
        if !msi.enable {
            return Explanation::stopped(Obstacle::MessagesDisabled);
        }
        if bit(msi.mask) {
            let pending = bit(msi.pending);
            return Explanation::stopped(Obstacle::VectorMasked { vector: slot, pending });
        }
        let MsiMessage { address, data } = msi.message;
        let data = data | u32::from(slot);
        Explanation::new().with_fact(Fact::Message(MsiMessage { address, data }))
    }

    fn bus(&self) -> Explanation {
        let stated = self.function.power.as_deref().and_then(|power| power.strip_prefix('D'));
        let stated = || stated.and_then(|state| state.get(..1)?.parse().ok());
        // Linux shows the state that it remembers, which a device may have left.
        let state = self.function.config.power_state().or_else(stated).unwrap_or(0);
        if state != 0 {
            return Explanation::stopped(Obstacle::PoweredDown { state });
        }
        let Some(command) = self.function.config.command() else { return Explanation::new() };
        if !command.bus_master {
            return Explanation::stopped(Obstacle::BusMasterDisabled);
        }
        if !command.memory && self.mode() == Mode::Msix {
            return Explanation::stopped(Obstacle::MemoryDisabled);
        }
        let is_closed = |bridge: &&&Function| {
            bridge.config.command().is_some_and(|command| !command.bus_master)
        };
        if let Some(bridge) = self.placement.bridges.iter().rev().find(is_closed) {
            let bridge = bridge.address.requester;
            return Explanation::stopped(Obstacle::BridgeDisabled { bridge });
        }
        if self.lacks_stream() {
            let requester = self.placement.requester;
            return stopped(SetupFault::NoStream { requester });
        }
        Explanation::new().with_fact(Fact::BusMaster)
    }

    /// Returns `true` if an SMMU probably aborts the function's messages: firmware maps no stream
    /// for the function, Linux has not assigned it to an IOMMU group, and no message has arrived.
    fn lacks_stream(&self) -> bool {
        let Some(host) = self.placement.host else { return false };
        let description = self.system.description();
        let used = host.iommu.map.iter().filter_map(|entry| description.iommu(entry.iommu?));
        let is_confined = used.into_iter().any(|iommu| iommu.status.is_enabled());
        is_confined
            && host.iommu.stream(self.placement.requester).is_none()
            && self.function.iommu_group.is_none()
            && !self.system.options.smmu_bypass
            && self.has_no_message()
    }

    /// Returns `true` if none of the function's messages has arrived.
    fn has_no_message(&self) -> bool {
        self.interrupts().iter().all(|(_, irq)| irq.is_none_or(|irq| irq.count == 0))
    }

    fn doorbell(&self, irq: &Irq) -> Explanation {
        let Some((route, controller)) = self.route() else { return Explanation::new() };
        if belongs_to(&irq.chip, &controller.kind) == Some(false) {
            return stopped(SetupFault::OtherController);
        }
        let is_root_port =
            self.placement.bridges.is_empty() && self.function.config.secondary_bus().is_some();
        if controller.kind == ControllerKind::ImsiRx && is_root_port && self.has_no_message() {
            return stopped(SetupFault::RootPort);
        }
        let Some(doorbell) = controller.doorbell(route.device_id) else {
            return Explanation::new();
        };
        let msi = self.function.config.msi().filter(|msi| msi.enable);
        let address = msi.map(|msi| msi.message.address);
        let is_direct = !self.system.is_translated(self.function);
        match address.filter(|address| is_direct && *address != doorbell) {
            Some(address) => {
                let doorbell = Some(doorbell);
                Explanation::stopped(Obstacle::NoDoorbell { address, doorbell })
            }
            None => Explanation::new().with_fact(Fact::Doorbell(doorbell)),
        }
    }

    fn translation(&self) -> Explanation {
        let assumed = self.assumed_device_id();
        if let Some(device) = assumed.filter(|_| self.has_no_message()) {
            return stopped(SetupFault::AssumedDeviceId { device });
        }
        let route = self.route().filter(|(_, controller)| controller.kind.needs_device_id());
        let sender = assumed.or_else(|| route.map(|(route, _)| route.device_id));
        Explanation::new().with_facts(&[sender.map(Fact::Sender)])
    }

    fn target(&self, irq: &Irq) -> Explanation {
        let online = self.system.online.as_deref();
        if online.is_some_and(|online| irq.is_shut_down(online)) {
            return Explanation::stopped(Obstacle::ShutDown);
        }
        let Some(cpu) = irq.first_cpu() else { return Explanation::new() };
        if online.is_some_and(|online| !irqs::contains(online, cpu)) {
            return Explanation::stopped(Obstacle::Offline { cpu: Cpu::new(cpu) });
        }
        Explanation::new().with_fact(Fact::Routed(Cpu::new(cpu)))
    }
}

fn handler(number: u32, irq: &Irq) -> Explanation {
    let explanation = Explanation::new().with_fact(Fact::Irq(number));
    if irq.handlers.is_empty() {
        return explanation.with_obstacle(Obstacle::NotRequested);
    }
    if irq.debug.as_ref().is_some_and(|state| state.is_disabled) {
        return explanation.with_obstacle(Obstacle::DisabledByDriver);
    }
    explanation.with_fact(Fact::Runs(irq.count))
}

const fn stopped(fault: SetupFault) -> Explanation {
    Explanation::stopped(Obstacle::Setup(fault))
}

/// Returns `true` if an obstacle is a fault of the machine, its firmware or its kernel. Other
/// obstacles, such as a function without a driver, also occur in working machines.
pub(super) const fn is_fault(obstacle: Obstacle) -> bool {
    !matches!(
        obstacle,
        Obstacle::Setup(
            SetupFault::NoDriver
                | SetupFault::NoCapability
                | SetupFault::NotAllocated
                | SetupFault::NoProgram
                | SetupFault::MessagesUnused
                | SetupFault::RootPort
        ) | Obstacle::PoweredDown { .. }
            | Obstacle::VectorMasked { .. }
            | Obstacle::NotRequested
            | Obstacle::DisabledByDriver
            | Obstacle::ShutDown
    )
}
