//! Laws of the page, for machines with any number of nodes and any names.

use super::*;
use crate::any_machine::machines;
use crate::inspect::Inspection;
use gic_firmware::lint::KnownRegisters;
use proptest::prelude::*;

/// Returns the names in the page, which are the texts between tags and in attributes.
fn unescaped(html: &str) -> String {
    // The page shows text in backticks as code.
    let entities = [
        ("<code>", "`"),
        ("</code>", "`"),
        ("&#60;", "<"),
        ("&lt;", "<"),
        ("&#62;", ">"),
        ("&gt;", ">"),
    ];
    let entities = entities.into_iter().chain([("&#34;", "\""), ("&quot;", "\"")]);
    let entities = entities.chain([("&#39;", "'"), ("&#38;", "&"), ("&amp;", "&")]);
    entities.fold(html.to_owned(), |text, (entity, character)| text.replace(entity, character))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 16,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_page_lists_every_object_and_escapes_every_name(source in machines()) {
        let known = KnownRegisters::default();
        let findings = judge(&source.description, &known);
        let run = RunPart::NotMade("<x-odd>".into());
        let inspection = Inspection::of(&source, &known);
        let html = Page::of(&source, inspection, &findings, &run).html().unwrap();
        prop_assert!(!html.contains("<x-odd"), "a name became a tag");
        prop_assert_eq!(html.matches("<script").count(), 1);
        prop_assert!(html.trim_end().ends_with("</html>"));
        let text = unescaped(&html);
        let description = &source.description;
        let cpus = description.cpus.iter().map(|cpu| &cpu.id);
        let controllers = description.controllers.iter().map(|controller| &controller.id);
        let devices = description.devices.iter().map(|device| &device.id);
        for id in cpus.chain(controllers).chain(devices) {
            prop_assert!(text.contains(&id.to_string().replace("&amp;", "&")), "{id}");
        }
        for finding in &findings {
            let message = finding.message.replace("&amp;", "&");
            prop_assert!(text.contains(&message), "{message}");
        }
    }
}
