//! Opens the report that the command writes, and the browser inspector that shows it about dropped
//! files, in a real browser: in light and dark color schemes, and in wide and narrow windows. Some
//! names in firmware would be code if they weren't escaped.

mod bench;
mod build;
mod inspector;
mod names;
mod report;
mod trees;

use std::sync::Arc;

use anyhow::Result;
use doorbell_harness::suite::{Case, Shared};
use doorbell_harness::workspace;

use self::bench::{Bench, MISTAKES, VIEWS, View};
pub(crate) use self::build::build;
use self::report::PAGES;

pub(crate) fn cases() -> Result<Vec<Case>> {
    // The browser is closed after the last case.
    let bench = Arc::new(Shared::new());
    let case = |name: &str, run: fn(&Bench) -> Result<()>| case(&bench, name.to_owned(), run);
    let mut cases = vec![
        case("a box shows its route", report::shows_routes),
        case("print is complete", report::prints_everything),
        case("hostile names in a report are text", report::shows_names_as_text),
        case("the inspector loads nothing", inspector::loads_nothing),
        case("keyboard", inspector::is_operated_by_keys),
        case("the command prints the same", inspector::agrees_with_the_command),
        case("unsuitable files are refused", inspector::refuses),
        case("hostile names in the inspector are text", inspector::shows_names_as_text),
        case("time and memory have limits", inspector::stops),
    ];
    for view @ (scheme, width) in VIEWS {
        let case = |name: String, run: fn(&Bench, &str, View) -> Result<()>, page: &'static str| {
            let name = format!("{name}, {scheme}, {width} pixels");
            self::case(&bench, name, move |bench| run(bench, page, view))
        };
        cases.extend(PAGES.map(|page| case(page.to_owned(), report::passes_audit, page)));
        cases.push(case("findings lead to boxes".into(), report::leads_to_boxes, "mistakes"));
        cases.push(case("drop".into(), inspector::passes_audit, MISTAKES));
    }
    for (name, tree) in trees::ALL {
        let run = move |bench: &Bench| inspector::stays_alive(bench, name, &tree());
        cases.push(self::case(&bench, format!("hostile {name}"), run));
    }
    drop(bench);
    Ok(cases)
}

fn case(
    bench: &Arc<Shared<Bench>>,
    name: String,
    run: impl FnOnce(&Bench) -> Result<()> + Send + 'static,
) -> Case {
    let bench = Arc::clone(bench);
    Case::of(name, move || run(bench.get(|| Bench::start(workspace::this()?))?))
}
