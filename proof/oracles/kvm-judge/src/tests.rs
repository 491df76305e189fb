mod kept;

use crate::damage::different_answers;
use crate::model::ModelMachine;

/// Rehearses states with one fault each. The answers must be KVM's, according to Linux's source.
#[test]
fn rehearsals_answer_as_kvm() {
    let machine = || Ok(Box::new(ModelMachine::new()?) as _);
    let different =
        different_answers(machine, |damaged| Ok(damaged.exported.rehearse().map(drop)?));
    assert_eq!(different.expect("each row is a change"), Vec::<String>::new());
}
