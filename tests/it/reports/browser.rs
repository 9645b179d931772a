//! The HTML report in a real browser.

use serde_json::{Value, json};

use super::chromium::{Browser, Page, program};
use super::{CUSTOMER, small};
use crate::support::{Place, tell};

/// A browser, or a loud line.
fn browser() -> Option<Browser> {
    let program = program();
    if program.is_none() {
        tell(
            "A BROWSER TEST IS SKIPPED: there is no `chromium` here; `tests/run` installs it, or: apt-get install chromium",
        );
    }
    program.map(|program| Browser::start(&program))
}

/// The column `data-…` of the checks that are shown, in their order.
fn shown(page: &mut Page<'_>, column: &str) -> Vec<String> {
    let found = page.evaluate(&format!(
        "[...document.getElementById('violations').tBodies].filter(row => !row.hidden && row.getBoundingClientRect().height > 0)\
         .map(row => row.dataset.{column})"
    ));
    serde_json::from_value(found).unwrap()
}

fn set(page: &mut Page<'_>, control: &str, text: &str) {
    page.evaluate(&format!(
        "{{ const it = document.getElementById('{control}'); it.value = {}; it.dispatchEvent(new Event('input', {{ bubbles: true }})); }}",
        json!(text)
    ));
}

fn sort(page: &mut Page<'_>, column: &str) {
    page.evaluate(&format!("document.querySelector('th[data-key={column}] button').click()"));
}

#[test]
fn table_of_violations_sorts_filters_and_opens() {
    let Some(mut browser) = browser() else { return };
    let place = Place::samples();
    let report = place.report(&["run", CUSTOMER, "--report", "html=r.html"], 0);
    let mut page = browser.open(&place.path("r.html"), 1280, "light");
    let failing = |wanted: &dyn Fn(&Value, &Value) -> bool| -> usize {
        let tables = report["tables"].as_array().unwrap().iter();
        let of = |table: &Value| {
            let checks = table["checks"].as_array().unwrap().iter();
            checks.filter(|check| check["violations"] != 0 && wanted(table, check)).count()
        };
        tables.map(of).sum()
    };
    let all = shown(&mut page, "name");
    assert_eq!(all.len(), failing(&|_, _| true));

    // As it comes: what most rows fail first. Then by each column, one way and the other.
    let numbers = |texts: Vec<String>| texts.iter().map(|text| text.parse::<u64>().unwrap()).collect::<Vec<_>>();
    let as_it_comes = numbers(shown(&mut page, "rows"));
    assert!(as_it_comes.is_sorted_by(|one, other| one >= other) && as_it_comes[0] > 1, "{as_it_comes:?}");
    sort(&mut page, "rows");
    sort(&mut page, "rows");
    assert!(numbers(shown(&mut page, "rows")).is_sorted());
    sort(&mut page, "name");
    let by_name = shown(&mut page, "name");
    assert_eq!(by_name[0], "accepted_values(language)");
    sort(&mut page, "name");
    let mut reversed = shown(&mut page, "name");
    assert_ne!(reversed, by_name);
    reversed.sort();
    assert_eq!(reversed, {
        let mut names = by_name.clone();
        names.sort();
        names
    });
    sort(&mut page, "table");
    assert!(shown(&mut page, "table").is_sorted());
    assert_eq!(page.evaluate("document.querySelectorAll('th[aria-sort]').length"), 1);

    set(&mut page, "which", "meter");
    assert_eq!(shown(&mut page, "name").len(), failing(&|table, _| table["name"] == "meter"));
    set(&mut page, "find", "badge");
    let found = shown(&mut page, "name");
    assert!(found.contains(&"not_null(badge_no)".into()) && found.len() < 5, "{found:?}");
    set(&mut page, "find", "no check has this");
    assert!(shown(&mut page, "name").is_empty());
    assert_eq!(
        page.evaluate("document.getElementById('count').textContent"),
        json!(format!("0 of {} checks", all.len()))
    );
    set(&mut page, "find", "");
    set(&mut page, "which", "");
    set(&mut page, "what", "warned");
    assert_eq!(shown(&mut page, "name").len(), failing(&|_, check| check["severity"] == "warn"));
    set(&mut page, "what", "");

    // A row opens and closes, by a click and by its link.
    let open = "document.querySelectorAll('#violations .detail').values().filter(row => row.getBoundingClientRect().height > 0).toArray().length";
    assert_eq!(page.evaluate(open), 0);
    page.evaluate("document.querySelector('#violations .main').click()");
    assert_eq!(page.evaluate(open), 1);
    assert_eq!(page.evaluate("document.querySelector('[aria-expanded=true]') !== null"), true);
    page.evaluate("document.querySelector('#violations .open .open-it').click()");
    assert_eq!(page.evaluate(open), 0);
    page.evaluate("location.hash = '#c-3'");
    while page.evaluate(open) != 1 {}

    // On paper everything is there, whatever was filtered or closed.
    set(&mut page, "find", "badge");
    page.call("Emulation.setEmulatedMedia", json!({ "media": "print" }));
    assert_eq!(page.evaluate(open), json!(all.len()));
    assert!(page.complaints.is_empty(), "{:#?}", page.complaints);
}

#[test]
fn nothing_is_wider_than_the_window_in_light_and_dark() {
    let Some(mut browser) = browser() else { return };
    let place = Place::samples();
    place.pipeline(&["run", CUSTOMER, "--report", "html=r.html"]).passes();
    for (width, scheme) in [(320, "light"), (390, "light"), (390, "dark"), (768, "dark"), (1440, "light")] {
        let mut page = browser.open(&place.path("r.html"), width, scheme);
        page.evaluate("for (const row of document.querySelectorAll('#violations .main')) row.click(); for (const it of document.querySelectorAll('details')) it.open = true");
        let room = page.evaluate("document.documentElement.clientWidth");
        assert!(room.as_u64().unwrap() + 20 > width.into(), "no more than a scroll bar is taken off");
        assert_eq!(page.evaluate("document.documentElement.scrollWidth"), room, "at {width}");
        // Nor is anything inside, but for tables that scroll by themselves.
        let wide = "[...document.querySelectorAll('body *')].filter(it => !it.closest('.scroll') && !it.closest('svg') && \
            it.getBoundingClientRect().right > innerWidth + 0.5).map(it => it.outerHTML.slice(0, 120))";
        assert_eq!(page.evaluate(wide), json!([]), "at {width}");
        let narrow = "Math.min(...[...document.querySelectorAll('#violations .c-check')].map(it => it.getBoundingClientRect().width))";
        assert!(page.evaluate(narrow).as_f64().unwrap() > 100.0, "the names of checks have room at {width}");
        let background = page.evaluate("getComputedStyle(document.body).backgroundColor");
        let meant = if scheme == "dark" { "rgb(16, 21, 28)" } else { "rgb(246, 247, 249)" };
        assert_eq!(background, meant);
        assert!(page.complaints.is_empty(), "{:#?}", page.complaints);
    }
}

#[test]
fn what_data_and_names_hold_is_text_and_never_runs() {
    let Some(mut browser) = browser() else { return };
    let place = super::hostile::place();
    place.pipeline(&["validate", "p.yaml", "--report", "html=r.html"]).passes();
    let mut page = browser.open(&place.path("r.html"), 390, "light");
    assert_eq!(page.evaluate("typeof hacked"), "undefined");
    assert_eq!(page.evaluate("document.scripts.length"), 1);
    assert_eq!(
        page.evaluate(
            "document.images.length + document.querySelectorAll('iframe, object, embed, link, base, form').length"
        ),
        0
    );
    let text = page.evaluate("document.body.textContent").as_str().unwrap().to_owned();
    for wanted in
        ["<script>hacked = 1</script>", "\"><img src=x onerror=hacked=1>", "</td></table>", "␛[31m", "[U+202E]"]
    {
        assert!(text.contains(wanted), "{wanted}");
    }
    assert_eq!(page.evaluate("document.documentElement.scrollWidth"), 390);
    assert!(page.complaints.is_empty(), "{:#?}", page.complaints);
    // The policy is in force: what is put in afterwards does not run, and is told.
    page.evaluate(
        "{ const it = document.createElement('script'); it.textContent = 'hacked = 2'; document.body.append(it); }",
    );
    page.evaluate(
        "{ const it = document.createElement('p'); it.setAttribute('style', 'color: red'); document.body.append(it); }",
    );
    assert_eq!(page.evaluate("typeof hacked"), "undefined");
    while page.complaints.iter().filter(|complaint| complaint.to_lowercase().contains("security")).count() < 2 {
        page.evaluate("1");
    }
}

#[test]
fn a_report_without_violations_complains_of_nothing() {
    let Some(mut browser) = browser() else { return };
    let place = small("CREATE TABLE item (id INTEGER PRIMARY KEY, ref TEXT)", "ref\na\n", "    key: { column: id }\n");
    place.pipeline(&["validate", "p.yaml", "--report", "html=r.html"]).passes();
    let mut page = browser.open(&place.path("r.html"), 1280, "dark");
    assert!(page.evaluate("document.body.textContent").as_str().unwrap().contains("All rows pass all"));
    assert!(page.complaints.is_empty(), "{:#?}", page.complaints);
}
