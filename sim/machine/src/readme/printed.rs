//! Comparison of the texts that the guide for monitors shows with what its code prints.

use super::guest::{GuestKernel, ram};
use super::monitor::create;
use super::vmm::{Kicks, Vm, run};
use msi_types::{Delivery, DeviceId};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use vgic_monitor::irq_routing::Unsettled;
use vgic_monitor::vgic::{Vcpu, Vgic, VgicConfig, its::ItsConfig};

const LIMIT: Duration = Duration::from_secs(1);
const GUIDE: &str = include_str!("../../../../docs/guides/monitor.md");

#[test]
fn the_guide_shows_the_errors_that_are_printed() {
    let printed = [
        its_without_lpis(),
        restored_into_fewer_spis(),
        saved_while_a_vcpu_runs(),
        Unsettled(LIMIT).to_string(),
        restored_with_another_function(),
    ];
    // A row of a table whose first cell is one code span shows a printed text.
    let cells = GUIDE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let shown: Vec<_> = cells.map(|(text, _)| text).filter(|text| !text.contains('`')).collect();
    assert_eq!(shown, printed);
}

#[test]
fn the_guide_shows_the_fault_that_is_printed() {
    let blocks = GUIDE.split("```text\n").skip(1);
    let shown: Vec<_> = blocks.filter_map(|block| Some(block.split_once("```")?.0)).collect();
    assert_eq!(shown, [message_of_an_unmapped_device()]);
}

fn its_without_lpis() -> String {
    let config = VgicConfig::new(1).with_its(vec![ItsConfig::new(0x0808_0000)]);
    Vgic::new(config, ram(), Arc::new(|_| ())).unwrap_err().to_string()
}

fn restored_into_fewer_spis() -> String {
    let (machine, mut vcpus) = Vm::new(ram()).unwrap();
    let mut state = machine.parts().save(&mut vcpus, LIMIT).unwrap();
    let fewer = VgicConfig::new(4)
        .with_spis(64)
        .with_lpi_id_bits(Some(16))
        .with_its(vec![ItsConfig::new(0x0808_0000)]);
    let (other, mut others) = Vgic::new(fewer, ram(), Arc::new(|_| ())).unwrap();
    let _paused: Vec<_> = others.iter_mut().map(Vcpu::pause).collect();
    state.gic = other.save().unwrap();
    machine.parts().restore(&mut vcpus, &state).unwrap_err().to_string()
}

fn restored_with_another_function() -> String {
    let (machine, mut vcpus) = Vm::new(ram()).unwrap();
    let mut state = machine.parts().save(&mut vcpus, LIMIT).unwrap();
    state.functions.clear();
    machine.parts().restore(&mut vcpus, &state).unwrap_err().to_string()
}

fn saved_while_a_vcpu_runs() -> String {
    let guest = create(ram(), Arc::new(Kicks::default())).unwrap();
    let mut vcpus = guest.vcpus;
    let _paused: Vec<_> =
        vcpus.iter_mut().filter(|vcpu| vcpu.cpu().get() != 1).map(Vcpu::pause).collect();
    guest.gic.save().unwrap_err().to_string()
}

/// Returns what the monitor prints when a message has another DeviceID than the function's.
fn message_of_an_unmapped_device() -> String {
    let ram = ram();
    let (machine, mut vcpus) = Vm::new(ram.clone()).unwrap();
    let (done, is_done) = channel();
    let program = move |guest: &GuestKernel, irqchip: &_| {
        let function = guest.probe(irqchip, |_| ());
        done.send(()).unwrap();
        // Keeps the function's mapping while the monitor sends.
        std::mem::forget(function);
    };
    let mut cpus = GuestKernel::start(&machine.gic, ram, program);
    run(&machine, &mut vcpus, &mut cpus, || is_done.recv().expect("the guest panicked"));
    let message = machine.function.message(0).unwrap();
    let its = machine.gic.its(0).unwrap();
    assert_eq!(its.signal_msi(DeviceId::new(9), message.message), Delivery::Blocked);
    let mut faults = Vec::new();
    machine.gic.events().drain(|fault| faults.push(format!("guest: {fault}\n")));
    faults.concat()
}
