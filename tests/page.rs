//! The status page in a real headless Chromium: over the running service and over the HTTP side with
//! a source of any state. What it shows, that foreign text stays text, that it is there for keyboard,
//! screen reader, telephone and weak eyes, and that it keeps up. With FTPULSE_SHOTS=DIR pictures of
//! each state are left in DIR. FTPULSE_TEST_SKIP_BROWSER=1 skips all of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)] // a panic is how a test says no
#![cfg(feature = "lab")]

mod page_common;
mod support;
mod wedge_common;

use std::collections::BTreeSet;

use ftpulse::lab::{Fault, Kind, LabServer, Script};
use ftpulse::report::{QuarantineStatus, RouteStatus, Status};
use page_common::*;
use serde_json::{Value, json};
use support::browser::{Browser, ENTER, TAB, wanted};
use support::http;
use support::service::{Ftpulse, Settings};
use support::{content, temp_dir, wait_until};
use wedge_common::SIZE;

/// All that the page may do, to the letter.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

fn url(service: &Ftpulse) -> String {
    format!("http://{}/", service.http())
}

fn settings(lab: &LabServer) -> Settings {
    Settings::new()
        .quick()
        .route_to("main", &lab.url("in"), lab.password())
        .key("routes.main.uploaders", "2")
}

fn shows(state: &str) -> String {
    format!("return document.querySelector('#state-words').textContent === {state:?}")
}

/// Nothing of the page was against its policy, and no script of it failed. That a question had no
/// answer is the browser's own remark.
fn no_complaint(browser: &Browser) {
    let lines = browser.console().into_iter();
    let complaints: Vec<_> = lines
        .filter(|line| !line.contains("Failed to load resource"))
        .collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// No part of the page is wider than the screen.
fn fits(browser: &Browser) {
    let wide = browser.run(
        "const e = document.documentElement; \
         if (e.scrollWidth <= e.clientWidth) return []; \
         return [...document.body.querySelectorAll('*')] \
           .filter((n) => n.getBoundingClientRect().right > e.clientWidth) \
           .map((n) => `${n.tagName}.${n.className} ${n.textContent.slice(0, 40)}`)",
    );
    assert_eq!(wide, json!([]), "wider than the screen");
}

#[test]
fn the_parts_of_the_page_come_with_their_policy_and_hold_no_data() {
    let scene = Scene::serve(everything(), None);
    let page = http::get(scene.address, "/").unwrap();
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let mut asked = vec!["/".to_owned()];
    for text in page.body.split('"').filter(|t| t.starts_with("/page/")) {
        asked.push(text.to_owned());
        let part = http::get(scene.address, text).unwrap();
        let imports = part.body.split('"').filter_map(|t| t.strip_prefix("./"));
        asked.extend(imports.map(|name| format!("/page/{name}")));
    }
    assert!(asked.len() > 10, "{asked:?}");
    for path in asked {
        let part = http::get(scene.address, &path).unwrap();
        assert_eq!(part.status, 200, "{path}");
        assert_eq!(
            part.header("content-security-policy"),
            Some(POLICY),
            "{path}"
        );
        assert_eq!(part.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(part.header("cache-control"), Some("no-store"));
        assert_eq!(
            part.header("cross-origin-resource-policy"),
            Some("same-origin")
        );
        for data in ["carrier.example", "readings", "1.2.3"] {
            assert!(!part.body.contains(data), "{path}: {data}");
        }
    }
    let other = http::get(scene.address, "/api/status").unwrap();
    let policy = other.header("content-security-policy").unwrap();
    assert!(!policy.contains("script-src"), "{policy}");
}

#[test]
fn an_idle_service_is_shown_with_its_beats_and_says_that_nothing_waits() {
    if !wanted() {
        return;
    }
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab).start();
    let browser = Browser::start();
    browser.open(&url(&service));
    browser.wait(&shows("Running"));
    browser.wait(
        "return document.querySelectorAll('#slot-rows .strip[aria-label=\"Last beats: 30 acked; \
         newest acked\"]').length === 2",
    );
    assert_eq!(browser.text("#version"), env!("CARGO_PKG_VERSION"));
    let glance = browser.text("#glance");
    assert!(
        glance.contains("nothing waits") && glance.contains("of 2 slots"),
        "{glance}"
    );
    let routes = browser.text("#routes");
    assert!(
        routes.contains("main") && routes.contains("upload"),
        "{routes}"
    );
    for (part, words) in [
        ("#incidents-none", "No deadlock was found"),
        ("#quarantine-none", "No sockets are held"),
    ] {
        assert!(browser.text(part).starts_with(words), "{part}");
    }
    for (width, dark, name) in [
        (1280, false, "idle-light"),
        (1280, true, "idle-dark"),
        (390, false, "idle-390"),
    ] {
        browser.screen(width, dark);
        fits(&browser);
        browser.shot(name);
    }
    no_complaint(&browser);
}

#[test]
fn uploads_in_work_are_shown_with_progress_and_rates() {
    if !wanted() {
        return;
    }
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab)
        .key("routes.main.rate_limit", "300KiB")
        .start();
    let browser = Browser::start();
    browser.open(&url(&service));
    for n in 0..12 {
        service.put("main", &format!("small-{n:02}.csv"), &content(n, 20_000));
    }
    for n in 0..3 {
        service.put("main", &format!("large-{n}.bin"), &content(n, 2 << 20));
    }
    browser.wait(
        "return [...document.querySelectorAll('#slot-rows progress')].some((bar) => \
         bar.checkVisibility() && bar.value > 0.2 && bar.value < 1)",
    );
    browser.wait("return /^[1-9][0-9.]* KiB\\/s$/.test(document.querySelector('#glance > :nth-child(3) .big').textContent)");
    browser.wait(
        "return document.querySelector('#routes td[data-label=\"Delivered\"]').textContent >= 12",
    );
    println!("{}", browser.text("#glance"));
    println!("{}", browser.text("#slots"));
    for (width, dark, name) in [
        (1280, false, "busy-light"),
        (1280, true, "busy-dark"),
        (390, true, "busy-390-dark"),
    ] {
        browser.screen(width, dark);
        fits(&browser);
        browser.shot(name);
    }
    no_complaint(&browser);
}

#[test]
fn a_wedge_is_seen_while_it_lasts_and_its_story_stays_open_and_its_file_name_stays_text() {
    if !wanted() {
        return;
    }
    const NAME: &str = "<img src=x onerror=ran=1>.bin";
    let root = temp_dir();
    let fault = Fault::new(Kind::StopReading { after: 16 * 1024 }).matching(".bin", 1);
    let lab = LabServer::start(root.path(), fault).unwrap();
    // Slow enough that a person sees each step.
    let service = settings(&lab)
        .key("timers.stall", "2s")
        .key("heartbeat.interval", "1s")
        .start();
    let browser = Browser::start();
    browser.open(&url(&service));
    browser.wait(&shows("Running"));
    service.put("main", NAME, &content(7, SIZE));
    // Vouched for at first, then missed.
    browser
        .wait("return document.querySelector('.silent .beat.missed')?.hasAttribute('d') ?? false");
    assert_eq!(browser.text(".silent .file"), NAME);
    let label = browser.run("return document.querySelector('.silent .strip').ariaLabel");
    println!("{label}");
    assert!(
        label.as_str().unwrap().contains("missed; newest missed"),
        "{label}"
    );
    browser.shot("wedge-before-the-verdict-light");

    browser.wait("return document.querySelectorAll('#incidents > li').length === 1");
    browser.run("document.querySelector('#incidents summary').focus()");
    browser.press(ENTER);
    assert_eq!(
        browser.run("return document.querySelector('#incidents details').open"),
        true
    );
    for (width, dark, name) in [
        (1280, false, "wedge-light"),
        (1280, true, "wedge-dark"),
        (390, false, "wedge-390"),
    ] {
        browser.screen(width, dark);
        fits(&browser);
        browser.shot(name);
    }
    let summary = browser.text("#incidents summary");
    for text in [
        "#1",
        "The peer lives, but has stopped reading",
        "transfer",
        NAME,
    ] {
        assert!(summary.contains(text), "{text}: {summary}");
    }
    service.wait_delivered(NAME);
    // Its number stands in the place that it fills, and the place is told in words too.
    browser.wait("return document.querySelectorAll('#ring .place[data-filled]').length === 1");
    let ring = browser.run("return document.querySelector('#ring').ariaLabel");
    assert_eq!(ring, "1 of 16 places filled");
    let title =
        browser.run("return document.querySelector('.place[data-filled] title').textContent");
    assert!(
        title
            .as_str()
            .unwrap()
            .starts_with("Incident 1, route main, held for"),
        "{title}"
    );
    assert!(browser.text("#pairs").contains("Incident 1"));
    // The worker's end stands in its strip.
    browser.wait("return document.querySelector('#slot-rows .beat.replaced[d]') !== null");
    browser.wait("return document.querySelector('#incidents .end').textContent.startsWith('✓ recovered after')");
    let kept = browser.run(
        "const d = document.querySelector('#incidents details'); \
         return [d.open, document.activeElement === d.querySelector('summary')]",
    );
    assert_eq!(
        kept,
        json!([true, true]),
        "open, and still in focus, through the refreshes"
    );
    let story = browser.text("#incidents .story");
    println!("{story}");
    for text in [
        "zero_window",
        "Data connection",
        "unsent",
        "still held",
        "after that",
    ] {
        assert!(story.contains(text), "{text}: {story}");
    }
    assert_eq!(
        browser.run("return [typeof ran, document.images.length]"),
        json!(["undefined", 0])
    );
    browser.screen(1280, false);
    browser.shot("recovered-light");
    no_complaint(&browser);
}

/// Every text that comes from outside is evil; returns how many there are.
fn evil() -> Told {
    let mut told = everything();
    let evil = || EVIL.to_owned();
    told.status.version = evil();
    told.status.journal_problem = Some(evil());
    told.not_ready = vec![evil()];
    let route = &mut told.status.routes[0];
    (route.name, route.destination) = (evil(), evil());
    route.suspended = Some(evil());
    route.spool_problem = Some(evil());
    route.destination_problem = Some(evil());
    route.last_failure = Some(evil());
    route.slots[0].phase = evil();
    route.slots[0].file = Some(evil() + &"x".repeat(300));
    route.slots[0].beats = evil();
    told.status.quarantine.pairs[0].route = evil();
    let incident = &mut told.incidents[0];
    (incident.route, incident.phase, incident.cause) = (evil(), evil(), evil());
    incident.file = Some(evil());
    let data = incident.data.as_mut().unwrap();
    (data.local, data.peer, data.state) = (Some(evil()), Some(evil()), evil());
    let thread = incident.thread.as_mut().unwrap();
    (thread.state, thread.wait_channel) = (evil(), evil());
    let stay = incident.quarantine.as_mut().unwrap();
    (stay.released, stay.reason, stay.peer) = (Some(1e9), Some(evil()), Some(evil()));
    told
}

#[test]
fn whatever_is_foreign_stays_text_everywhere() {
    if !wanted() {
        return;
    }
    let scene = Scene::serve(evil(), None);
    let browser = Browser::start();
    browser.open(&scene.url());
    browser.wait("return document.querySelectorAll('#incidents > li').length === 3");
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })");
    let text = browser.text("body");
    let seen = text.matches(EVIL).count();
    println!("{seen} times as text");
    assert!(seen >= 20, "{text}");
    scene.tell(|told| told.unavailable = Some(EVIL.into()));
    browser.wait(&shows("No answer"));
    assert!(browser.text("#notices").contains(EVIL));
    browser.screen(390, false);
    fits(&browser);
    browser.shot("foreign-390");
    let made = browser.run(
        "return [typeof ran, document.images.length, document.scripts.length, \
         document.querySelectorAll('[onerror], [style]').length]",
    );
    assert_eq!(made, json!(["undefined", 0, 1, 0]));
    no_complaint(&browser);
    // The page could not even do it on purpose, and this test would see it.
    let tried = browser.run(
        "try { document.body.innerHTML = '<b>x</b>'; return 'done' } catch (e) { return e.name }",
    );
    assert_eq!(tried, "TypeError");
    assert!(
        !browser.console().is_empty(),
        "a breach is seen in the console"
    );
}

#[test]
fn a_token_is_asked_for_in_the_page_kept_in_the_tab_and_never_in_a_url() {
    if !wanted() {
        return;
    }
    const TOKEN: &str = "s3cret-token";
    let scene = Scene::serve(everything(), Some(TOKEN));
    let browser = Browser::start();
    browser.open(&scene.url());
    browser.wait("return document.activeElement.id === 'token'");
    assert_eq!(browser.text("#state-words"), "Token needed");
    assert!(
        !browser.text("body").contains("carrier"),
        "no data without it"
    );
    for (width, dark, name) in [
        (1280, false, "token-light"),
        (1280, true, "token-dark"),
        (390, false, "token-390"),
    ] {
        browser.screen(width, dark);
        fits(&browser);
        let contrast = contrast(&browser);
        assert!(contrast.faults.is_empty(), "{contrast:#?}");
        browser.shot(name);
    }
    for wrong in ["wrong", "zażółć"] {
        browser.press(wrong);
        browser.press(ENTER);
        browser.wait(
            "return document.querySelector('#door-fault').textContent.includes('not the token')",
        );
        let kept = browser.run("return [sessionStorage.length, document.activeElement.id]");
        assert_eq!(kept, json!([0, "token"]), "{wrong}");
        browser.run("document.querySelector('#door-fault').textContent = ''");
    }
    browser.press(TOKEN);
    browser.press(ENTER);
    browser.wait(&shows("Running"));
    browser.wait("return document.querySelectorAll('#incidents > li').length === 3");
    let kept = browser.run(
        "return [{ ...sessionStorage }, localStorage.length, document.cookie, location.href, \
         document.querySelector('#token').value]",
    );
    let only = json!([{ "ftpulse-token": TOKEN }, 0, "", scene.url(), ""]);
    assert_eq!(kept, only);
    browser.open(&scene.url());
    browser.wait(&shows("Running"));

    // The token is changed while the page is open: it asks anew, and what stood there is gone.
    let empty = "return document.querySelector('#door').checkVisibility() && \
                 sessionStorage.length === 0 && !document.body.textContent.includes('carrier')";
    scene.set_token("another-token");
    browser.wait(empty);
    browser.press("another-token");
    browser.press(ENTER);
    browser.wait(&shows("Running"));
    browser.run("document.querySelector('#forget').click()");
    browser.wait(empty);
    let urls = browser.run("return performance.getEntriesByType('resource').map((e) => e.name)");
    let urls = urls.as_array().unwrap();
    assert!(
        urls.len() > 5 && !urls.iter().any(|u| u.to_string().contains(TOKEN)),
        "{urls:?}"
    );
    no_complaint(&browser);
}

#[test]
fn a_service_that_is_gone_is_said_with_the_time_of_its_last_data_until_it_is_back() {
    if !wanted() {
        return;
    }
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let mut service = settings(&lab).start();
    let address = service.http().to_string();
    service.put("main", "a.csv", b"small");
    service.wait_delivered("a.csv");
    let browser = Browser::start();
    browser.open(&url(&service));
    let delivered = |n: u32| {
        format!(
            "return document.querySelector('#routes td[data-label=\"Delivered\"]')?.textContent === '{n}'"
        )
    };
    browser.wait(&delivered(1));
    service.process.kill();
    browser.wait(&shows("Connection lost"));
    let (notice, newest) = (browser.text("#notices"), browser.text("#newest"));
    println!("{notice}");
    assert!(
        notice.contains(&format!("The last data is of {newest}")),
        "{notice}"
    );
    assert!(
        browser.text("#routes").contains("main"),
        "the last data stands"
    );
    assert_eq!(
        browser.run("return document.title"),
        "Connection lost: ftpulse"
    );
    assert_eq!(
        browser.run("return document.querySelector('#said').textContent"),
        "Connection lost."
    );
    for (width, dark, name) in [
        (1280, false, "lost-light"),
        (1280, true, "lost-dark"),
        (390, false, "lost-390"),
    ] {
        browser.screen(width, dark);
        fits(&browser);
        let contrast = contrast(&browser);
        assert!(contrast.faults.is_empty(), "{contrast:#?}");
        browser.shot(name);
    }
    let service = service.restart_with("FTPULSE__HTTP__LISTEN", Some(&address));
    browser.wait(&shows("Running"));
    browser.wait(&delivered(0));
    assert_eq!(browser.text("#notices"), "");
    drop(service);
    no_complaint(&browser);
}

#[test]
fn the_head_says_whether_the_service_drains_or_is_not_ready_and_why_and_tells_it_once() {
    if !wanted() {
        return;
    }
    let scene = Scene::serve(everything(), None);
    let browser = Browser::start();
    browser.open(&scene.url());
    browser.wait(&shows("Running"));
    assert_eq!(browser.text("#notices"), "");
    // Whoever listens is told of changes, not of each second.
    browser.run(
        "window.told = []; new MutationObserver(() => told.push(document.querySelector('#said')\
         .textContent)).observe(document.querySelector('#said'), { childList: true, \
         characterData: true, subtree: true })",
    );
    scene.tell(|told| told.not_ready = vec!["route plant: no folder /spool/plant".into()]);
    browser.wait(&shows("Not ready"));
    assert!(browser.text("#notices").contains("no folder /spool/plant"));
    scene.tell(|told| {
        told.not_ready.clear();
        told.status.draining = true;
        told.status.stranded_workers = 1;
        told.status.incident_changes += 1;
        told.incidents.insert(0, incident(4, false));
    });
    browser.wait(&shows("Draining"));
    let notices = browser.text("#notices");
    assert!(
        notices.contains("nothing new is begun") && notices.contains("1 worker"),
        "{notices}"
    );
    browser.wait("return document.querySelectorAll('#incidents > li').length === 4");
    let answers = scene.tell(|told| told.answers);
    wait_until("some more seconds pass", support::PATIENCE, || {
        scene.tell(|told| told.answers) > answers + 2
    });
    let told = browser.run("return told");
    let once = json!([
        "Not ready.",
        "Draining.",
        "Deadlock found: incident 4, route plant. The server owes a reply and sends none."
    ]);
    assert_eq!(told, once);
    scene.tell(|told| {
        *told = Told {
            status: Status {
                version: "1".into(),
                ..Status::default()
            },
            ..Told::default()
        }
    });
    browser.wait("return document.querySelector('#routes-none').checkVisibility()");
    assert!(
        browser.text("#notices").contains("The service is 1 now"),
        "another version"
    );
    no_complaint(&browser);
}

#[test]
fn the_keyboard_reaches_everything_and_a_refresh_takes_no_focus() {
    if !wanted() {
        return;
    }
    let scene = Scene::serve(everything(), None);
    let browser = Browser::start();
    browser.open(&scene.url());
    browser.wait("return document.querySelectorAll('#incidents > li').length === 3");
    let focused = || browser.run("return document.activeElement.innerText.split('\\n')[0]");
    let mut order = Vec::new();
    for _ in 0..13 {
        browser.press(TAB);
        order.push(focused().as_str().unwrap().to_owned());
        let seen = browser.run(
            "const s = getComputedStyle(document.activeElement); \
             return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2",
        );
        assert_eq!(seen, true, "{order:?}: the focus is seen");
    }
    println!("{order:?}");
    let wanted = [
        "Skip to the content",
        "Routes",
        "Slots",
        "Incidents",
        "Quarantine",
        "#3",
        "#2",
        "#1",
        "Metrics",
        "Health",
        "Readiness",
        "Status as JSON",
        "Incidents as JSON",
    ];
    assert_eq!(order, wanted);

    browser.open(&scene.url());
    browser.wait("return document.querySelectorAll('#incidents > li').length === 3");
    browser.press(TAB);
    let skip = browser.run(
        "const b = document.activeElement.getBoundingClientRect(); return b.top >= 0 && b.height > 20",
    );
    assert_eq!(skip, true, "the skip link is seen while it has the focus");
    browser.press(ENTER);
    assert_eq!(browser.run("return document.activeElement.id"), "content");
    browser.press(TAB);
    assert_eq!(focused(), "#3");
    browser.press(ENTER);
    // A selection survives as well.
    browser.run("getSelection().selectAllChildren(document.querySelector('#pairs .name'))");
    scene.tell(|told| {
        told.status.incident_changes += 1;
        told.incidents.insert(0, incident(4, false));
        told.status.quarantine.pairs[1].send_bytes = 7;
    });
    browser.wait("return document.querySelectorAll('#incidents > li').length === 4");
    let kept = browser.run(
        "const d = document.activeElement.closest('details'); \
         return [d.open, d.querySelector('.id').textContent, String(getSelection())]",
    );
    assert_eq!(kept, json!([true, "#3", "Incident 1"]));
}

#[test]
fn names_roles_and_contrast_hold_in_both_themes_on_a_desk_and_on_a_telephone() {
    if !wanted() {
        return;
    }
    let mut told = everything();
    told.not_ready = vec!["route plant: no folder /spool/plant".into()];
    let scene = Scene::serve(told, None);
    let browser = Browser::start();
    browser.open(&scene.url());
    browser.wait("return document.querySelectorAll('#incidents > li').length === 3");
    browser.run("document.querySelector('#incidents details').open = true");
    for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
        browser.screen(width, dark);
        fits(&browser);
        let contrast = contrast(&browser);
        println!(
            "{width} px, {}: {} texts, least {:.2}; {} shapes, least {:.2}",
            if dark { "dark" } else { "light" },
            contrast.texts,
            contrast.least,
            contrast.shapes,
            contrast.least_of_shapes
        );
        assert!(contrast.texts > 80 && contrast.shapes > 10, "{contrast:?}");
        assert!(contrast.faults.is_empty(), "{contrast:#?}");
        browser.shot(&format!(
            "everything-{width}-{}",
            if dark { "dark" } else { "light" }
        ));
        roles(&browser);
    }
    // The measure finds what it is for.
    browser.run("document.body.className = ''; document.querySelector('#routes-head').attributeStyleMap.set('color', '#666')");
    assert_eq!(contrast(&browser).faults.len(), 1);
    no_complaint(&browser);
}

/// What a screen reader is told: landmarks, headings, tables, and a name for whatever can be used.
fn roles(browser: &Browser) {
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({}));
    let nodes: Vec<(String, String)> = tree["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|node| node["ignored"] == false)
        .map(|node| {
            let of = |key: &str| node[key]["value"].as_str().unwrap_or_default().to_owned();
            (of("role"), of("name"))
        })
        .collect();
    let named = |role: &str| -> Vec<&str> {
        let of_it = nodes.iter().filter(|(r, _)| r == role);
        of_it.map(|(_, name)| name.as_str()).collect()
    };
    for role in [
        "link",
        "button",
        "textbox",
        "image",
        "progressbar",
        "table",
        "navigation",
        "heading",
        "DisclosureTriangle",
        "img",
        "rowheader",
        "columnheader",
        "region",
    ] {
        assert!(
            named(role).iter().all(|name| !name.is_empty()),
            "{role}: {:?}",
            named(role)
        );
    }
    for (role, least) in [
        ("main", 1),
        ("banner", 1),
        ("contentinfo", 1),
        ("status", 1),
        ("table", 2),
    ] {
        assert!(named(role).len() >= least, "{role}: {nodes:?}");
    }
    assert_eq!(named("progressbar").len(), 3);
    assert_eq!(named("rowheader").len(), 3 + 5, "routes and slots");
    let pictures: Vec<_> = named("image").into_iter().chain(named("img")).collect();
    assert!(pictures.contains(&"3 of 16 places filled"), "{pictures:?}");
    let strip = "Last beats: 16 acked, 9 vouched, 3 missed; newest missed";
    assert!(pictures.contains(&strip), "{pictures:?}");
    let headings: BTreeSet<_> = named("heading").into_iter().collect();
    for head in ["Routes", "Quarantine", "At a glance"] {
        assert!(headings.contains(head), "{headings:?}");
    }
}

#[test]
fn without_script_the_page_says_so_and_its_links_lead_on() {
    if !wanted() {
        return;
    }
    let scene = Scene::serve(everything(), None);
    let browser = Browser::start();
    browser.devtools(
        "Emulation.setScriptExecutionDisabled",
        &json!({ "value": true }),
    );
    browser.open(&scene.url());
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({}));
    let names = tree["nodes"].as_array().unwrap().iter();
    let names: Vec<_> = names.filter_map(|n| n["name"]["value"].as_str()).collect();
    assert!(
        names.iter().any(|n| n.contains("scripts are switched off")),
        "{names:?}"
    );
    for link in [
        "Metrics",
        "Health",
        "Readiness",
        "Status as JSON",
        "Incidents as JSON",
    ] {
        assert!(names.contains(&link), "{link}: {names:?}");
    }
    browser.shot("without-script");
}

#[test]
fn sixty_four_slots_and_fifty_incidents_are_kept_up_with_each_second() {
    if !wanted() {
        return;
    }
    let mut told = everything();
    let route = |n: u32| RouteStatus {
        name: format!("route{n:02}"),
        destination: format!("user@host{n}.example:21"),
        direction: "put".into(),
        slots: vec![
            working(
                0,
                &format!("2026/11/file-{n}.bin"),
                "aaaavvvvmmmmxaaaaaaaaa",
            ),
            working(1, &format!("2026/12/file-{n}.bin"), &"a".repeat(30)),
        ],
        ..RouteStatus::default()
    };
    told.status.routes = (0..32).map(route).collect();
    told.incidents = (1..=120)
        .rev()
        .map(|id| incident(id, id % 2 == 0))
        .collect();
    let pair = told.status.quarantine.pairs[0].clone();
    let pairs = (1..=700).map(|incident| ftpulse::report::PairStatus {
        incident,
        ..pair.clone()
    });
    told.status.quarantine = QuarantineStatus {
        capacity: 4096,
        pairs: pairs.collect(),
    };
    let scene = Scene::serve(told, None);
    let browser = Browser::start();
    browser.open(&scene.url());
    browser.wait("return document.querySelectorAll('#slot-rows > tr').length === 64");
    browser.wait("return document.querySelectorAll('#incidents > li').length === 50");
    assert!(browser.text("#older").contains("70 more"));
    let (mut took, mut shown) = (Vec::new(), BTreeSet::new());
    let first = scene.tell(|told| told.answers);
    wait_until("eight more answers are shown", support::PATIENCE, || {
        // Every beat of every slot and every file moves on.
        scene.tell(|told| {
            for slot in told.status.routes.iter_mut().flat_map(|r| &mut r.slots) {
                slot.beats.rotate();
                slot.bytes_sent = (slot.bytes_sent + 13_000) % 1_400_000;
            }
        });
        // Each answer delivers one more: the newest is shown, or the one before it while that is
        // on its way.
        let told = scene.tell(|told| told.answers);
        let seen = browser.run(
            "return [Number(document.querySelector('#routes td[data-label=\"Delivered\"]').textContent), \
             performance.getEntriesByName('refresh')[0].duration]",
        );
        let delivered = seen[0].as_u64().unwrap();
        assert!(delivered + 1 >= told, "{delivered} shown of {told}");
        if shown.insert(delivered) {
            took.push(seen[1].as_f64().unwrap());
        }
        told >= first + 8
    });
    took.sort_by(f64::total_cmp);
    println!(
        "64 slots, 50 incidents: one refresh took {took:.1?} ms, median {:.1} ms",
        took[took.len() / 2]
    );
    let drawn = browser.run("return performance.getEntriesByName('incidents')[0].duration");
    println!("the list of incidents took {drawn} ms, once and whenever it changes");
    assert!(shown.len() >= 8, "{shown:?}");
    browser.run("document.querySelector('#older').click()");
    assert_eq!(
        browser.run("return [document.querySelectorAll('#incidents > li').length, document.activeElement.querySelector('.id').textContent]"),
        json!([100, "#70"])
    );
    let ring = browser.run("return document.querySelectorAll('#ring .place').length");
    assert_eq!(ring, 2, "one arc, not thousands of places");
    assert!(
        browser.text("#pairs-more").contains("676"),
        "{}",
        browser.text("#pairs-more")
    );
    for (width, name) in [(1280, "many-light"), (390, "many-390")] {
        browser.screen(width, false);
        fits(&browser);
        browser.shot(name);
    }
    no_complaint(&browser);
}

/// Moves on by one.
trait Rotate {
    fn rotate(&mut self);
}

impl Rotate for String {
    fn rotate(&mut self) {
        let first = self.remove(0);
        self.push(first);
    }
}

#[test]
fn what_the_page_counts_on_is_in_the_api() {
    let root = temp_dir();
    let lab = LabServer::start(root.path(), Script::healthy()).unwrap();
    let service = settings(&lab).start();
    service.put("main", "a.csv", &content(1, 4321));
    service.wait_delivered("a.csv");
    let status: Value = service.json("/api/status");
    let route = &status["routes"][0];
    let counted = json!([
        route["direction"],
        route["delivered_bytes"],
        route["dead_letters"]
    ]);
    assert_eq!(counted, json!(["put", 4321, 0]));
    assert_eq!(
        json!([status["not_ready"], status["incident_changes"]]),
        json!([[], 0])
    );
    assert!(status["at"].as_f64() > status["started_at"].as_f64());
    wait_until("beats are told", support::PATIENCE, || {
        let status = service.json("/api/status");
        let beats = status["routes"][0]["slots"][0]["beats"].as_str().unwrap();
        beats.len() == 30 && beats.contains('a')
    });
}
