//! Cases that save a machine by correct and incorrect procedures, and check the LPIs that a
//! restored machine receives.

use super::count::{Count, accept, tell};
use doorbell_facts::JudgeFact;
use kvm_judge::kvm::KvmMachine;
use kvm_judge::layout::{CPUS, SPECIAL};
use kvm_judge::procedure::{Procedure, plan, restore_parts, save_parts, to_restore};
use kvm_judge::scenario::{acknowledge_all, play};
use kvm_judge::{Failure, saving};
use vgic_kvm::snapshot::KvmSnapshot;

/// Maximum number of bytes of JSON in one fact.
const PIECE: usize = 2000;

pub(super) fn run(count: &mut Count) {
    for procedure in Procedure::ALL {
        count.case(&format!("saved by the procedure {}", procedure.name()), restored(procedure));
    }
}

/// Saves a machine by a procedure, restores the snapshot into another machine, and checks the LPIs
/// that the vCPUs receive.
fn restored(procedure: Procedure) -> Result<(), Failure> {
    let mut machine = KvmMachine::new()?;
    play(&mut machine, &plan())?;
    let snapshot = procedure.save(&mut machine)?;
    print(procedure, &snapshot)?;
    if procedure == Procedure::Documented {
        let same = machine.snapshot()? == snapshot;
        accept(same, || "the snapshot through the descriptors differs".into())?;
    }
    let whole = save_parts(&mut machine)?;
    let untaken = [SPECIAL; CPUS as usize];
    let wanted = acknowledge_all(&mut machine, &untaken)?;
    if procedure == Procedure::PagesBeforeTables {
        let error = snapshot.rehearse().err().map(|error| error.to_string()).unwrap_or_default();
        return accept(error.contains("EFAULT"), || format!("not a bad address: {error:?}"));
    }
    let mut other = KvmMachine::new()?;
    saving::restore(&mut other, &to_restore(&snapshot))?;
    let received = acknowledge_all(&mut other, &untaken)?;
    let lost = |cpu: usize| wanted[cpu].iter().filter(|lpi| !received[cpu].contains(lpi)).count();
    match procedure {
        Procedure::Documented => {
            accept(received == wanted, || format!("{received:?}, not {wanted:?}"))?;
            accept(whole.gic == snapshot, || "the save by one call differs".into())?;
            let mut other = KvmMachine::new()?;
            restore_parts(&mut other, &whole)?;
            let received = acknowledge_all(&mut other, &untaken)?;
            accept(received == wanted, || format!("by one call {received:?}, not {wanted:?}"))
        }
        _ => accept(lost(0) == 0 && lost(1) > 0, || format!("{received:?} of {wanted:?}")),
    }
}

/// Prints a snapshot as facts, each with a piece of the JSON.
fn print(procedure: Procedure, snapshot: &KvmSnapshot) -> Result<(), Failure> {
    let json = serde_json::to_string(snapshot)?;
    for piece in json.as_bytes().chunks(PIECE) {
        let json = String::from_utf8(piece.to_vec())?;
        tell(JudgeFact::Json { procedure: procedure.name().into(), json: json.into() });
    }
    Ok(())
}
