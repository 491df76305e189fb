//! The trials and the VM that they use.

use doorbell_test_support::kvm::{Failure, Outcome, Trial, enable, same, take_arrived};
use hyperv_vpci::channel::{Channel, PacketKind};
use hyperv_vpci::host::{FunctionInterrupts, Host, HostConfig, HostFunction, Injection};
use hyperv_vpci::protocol::reply::InterruptReply;
use hyperv_vpci::protocol::{
    AssignedResources, Delivery as Mode, DeviceDescription, DeviceKey, InterruptDescriptor,
    InterruptForm, Processors, Request, ResourcesForm, Retarget, RetargetInput, Slot,
    TranslatedInterrupt, Version,
};
use hyperv_vpci::ring::{HeapRing, RingChannel};
use kvm_bindings::kvm_msi;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};
use std::num::NonZeroU8;
use std::sync::Arc;

type Ring = RingChannel<HeapRing, fn()>;

pub(crate) const ALL: &[Trial] = &[
    ("messages_ring_kvms_local_apics", messages),
    ("a_retarget_moves_a_vector_in_kvm", retarget),
    ("nothing_reaches_kvm_after_a_deletion", deletion),
];

/// Local APICs of a virtual machine.
struct LocalApics(VmFd);

impl SignalMsi<NoIdentity> for LocalApics {
    fn signal_msi(&self, _: NoIdentity, message: MsiMessage) -> Delivery {
        let message = kvm_msi {
            address_lo: message.address_low(),
            address_hi: (message.address >> 32) as u32,
            data: message.data,
            ..kvm_msi::default()
        };
        match self.0.signal_msi(message) {
            Ok(1..) => Delivery::Pending,
            _ => Delivery::Blocked,
        }
    }
}

const CPUS: u16 = 2;
const ADDRESS: u64 = 0xfeed_0000;
const INSTANCE: [u8; 16] = *b"a bus's instance";
const SLOT: Slot = Slot::new(0, 0);

/// Returns the message that raises a vector at the local APIC of a VP index. In this machine, APIC
/// IDs equal VP indices.
fn local(processor: u16, vector: u8) -> MsiMessage {
    MsiMessage { address: 0xfee0_0000 | u64::from(processor) << 12, data: vector.into() }
}

fn nobody() {}

/// Machine with two enabled local APICs and a bus that is on.
struct Machine {
    vcpus: Vec<VcpuFd>,
    host: Host,
    near: Ring,
    far: Ring,
    device: Arc<FunctionInterrupts>,
}

impl Machine {
    fn new() -> Result<Self, Failure> {
        let vm = Kvm::new()?.create_vm()?;
        vm.create_irq_chip()?;
        let mut vcpus = Vec::new();
        for id in 0..u64::from(CPUS) {
            let vcpu = vm.create_vcpu(id)?;
            enable(&vcpu)?;
            vcpus.push(vcpu);
        }
        let config = HostConfig::new(CPUS, ADDRESS, INSTANCE).with_quota(8);
        let signal = Arc::new(LocalApics(vm));
        let mut host = Host::new(config, Injection::Apic { signal, message: local })?;
        let description = DeviceDescription { slot: SLOT, ..DeviceDescription::default() };
        let device = host.offer(HostFunction::new(description, [0; 6]))?;
        let pages = NonZeroU8::new(1).ok_or("a page")?;
        let (there, back) = (HeapRing::new(pages)?, HeapRing::new(pages)?);
        let near = RingChannel::new(there.clone(), back.clone(), nobody as fn())?;
        let far = RingChannel::new(back, there, nobody as fn())?;
        let mut machine = Self { vcpus, host, near, far, device };
        for request in [
            Request::QueryVersion(Version::V1_4.to_wire()),
            Request::D0Entry { window: 0x1000_0000 },
            Request::AssignResources(AssignedResources::new(SLOT, ResourcesForm::V2)),
        ] {
            machine.ask(&request)?;
        }
        Ok(machine)
    }

    /// Sends a request and returns the host's answer.
    fn ask(&mut self, request: &Request) -> Result<Vec<u8>, Failure> {
        let mut buffer = [0; 256];
        let length = request.emit(&mut buffer)?;
        self.near.send(PacketKind::Request(1), &buffer[..length])?;
        self.host.serve(&mut self.far)?;
        loop {
            let received = self.near.receive(&mut buffer)?.ok_or("no answer")?;
            if received.kind == PacketKind::Completion(1) {
                return Ok(buffer[..received.length].to_vec());
            }
        }
    }

    fn create(&mut self, vector: u32) -> Result<TranslatedInterrupt, Failure> {
        let processors = Processors::one(0);
        let interrupt = InterruptDescriptor { vector, delivery: Mode::Fixed, count: 1, processors };
        let form = InterruptForm::V3;
        let answer = self.ask(&Request::CreateInterrupt { slot: SLOT, form, interrupt })?;
        let answer = InterruptReply::parse(&answer)?;
        let InterruptReply(translated) = answer.map_err(|status| format!("{status:?}"))?;
        Ok(translated)
    }

    /// Returns the vectors that have arrived at a CPU since the last call.
    fn arrived(&self, cpu: usize) -> Result<Vec<u32>, Failure> {
        take_arrived(&self.vcpus[cpu])
    }

    fn both(&self) -> Result<[Vec<u32>; 2], Failure> {
        Ok([self.arrived(0)?, self.arrived(1)?])
    }
}

fn messages() -> Outcome {
    let mut machine = Machine::new()?;
    let (one, other) = (machine.create(0x41)?, machine.create(0x52)?);
    same(machine.device.signal_msi(NoIdentity, other.message), Delivery::Pending)?;
    same(machine.both()?, [vec![0x52], vec![]])?;
    same(machine.device.signal_msi(NoIdentity, one.message), Delivery::Pending)?;
    same(machine.both()?, [vec![0x41], vec![]])
}

fn retarget() -> Outcome {
    let mut machine = Machine::new()?;
    let TranslatedInterrupt { message, .. } = machine.create(0x41)?;
    let device = DeviceKey::new(INSTANCE, SLOT);
    let retarget = Retarget { device, message, vector: 0x63, processor: 1 };
    let input = RetargetInput::new(&retarget)?;
    same(machine.host.retarget(input.bytes()), 0)?;
    same(machine.device.signal_msi(NoIdentity, message), Delivery::Pending)?;
    same(machine.both()?, [vec![], vec![0x63]])
}

fn deletion() -> Outcome {
    let mut machine = Machine::new()?;
    let interrupt = machine.create(0x41)?;
    machine.ask(&Request::DeleteInterrupt { slot: SLOT, interrupt })?;
    same(machine.device.signal_msi(NoIdentity, interrupt.message), Delivery::Blocked)?;
    same(machine.both()?, [vec![], vec![]])
}
