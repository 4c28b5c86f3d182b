//! Figures and names as text.

use grey_core::time::Timestamp;

use crate::ui::figure::{count, cut, fit, percent, time_of_day, total, width};

const ID: &str = "9b1f0c7e5d3a4f6688a1c2e3b4d5f60718293a4b5c6d7e8f90a1b2c3d4e5f607";

#[test]
fn a_path_keeps_what_names_it() {
    let docker = format!("/system.slice/docker-{ID}.scope");
    for (path, max, expected) in [
        ("/a/b", 10, "/a/b"),
        (docker.as_str(), 200, docker.as_str()),
        (&docker, 40, "/system.slice/docker-9b1f0c7e5d3a….scope"),
        (&docker, 30, "/s…/docker-9b1f0c7e5d3a….scope"),
        (&docker, 24, "docker-9b1f0c7e5d3a…"),
        (&docker, 17, "doc…9b1f0c7e5d3a…"),
        ("/system.slice/nginx.service", 20, "/syst…/nginx.service"),
        ("/system.slice/nginx.service", 5, "nginx"),
        ("/user.slice/東京東京東京東京.scope", 10, "東京…東京"),
        ("/ab", 1, "…"),
        ("/a", 0, ""),
    ] {
        assert_eq!(fit(path, max), expected, "{path} in {max}");
    }
}

#[test]
fn nothing_is_wider_than_its_room() {
    let texts = [
        format!("/kubepods.slice/pod/cri-containerd-{ID}.scope"),
        "/größe/日本語のとても長い名前/👩‍👩‍👧‍👦👩‍👩‍👧‍👦/e\u{301}e\u{301}e\u{301}".to_owned(),
        "////".to_owned(),
        "a".repeat(300),
        "a\u{1b}[31mb".repeat(9),
    ];
    for text in &texts {
        for max in 0..60 {
            assert!(
                width(&fit(text, max)) <= max,
                "{text} in {max}: {}",
                fit(text, max)
            );
            assert!(
                width(&cut(text, max)) <= max,
                "{text} in {max}: {}",
                cut(text, max)
            );
        }
    }
}

#[test]
fn figures_are_short_and_unknown_ones_a_dash() {
    for (figure, expected) in [
        (0.0, "0"),
        (0.01, "<0.1"),
        (0.34, "0.3"),
        (9.97, "10"),
        (9_999.0, "9999"),
        (10_000.0, "10.0k"),
        (123_456.0, "123k"),
        (4.5e6, "4.5M"),
        (8.1e8, "810M"),
    ] {
        assert_eq!(count(Some(figure)), expected);
    }
    for (figure, expected) in [(0.0, "0%"), (0.01, "<.1%"), (3.25, "3.2%"), (99.9, "100%")] {
        assert_eq!(percent(Some(figure)), expected);
    }
    assert_eq!(
        (total(Some(0)), total(Some(999)), total(Some(1_234_567))),
        ("0".into(), "999".into(), "1,234,567".into())
    );
    assert_eq!(
        (count(None), percent(None), total(None)),
        ("–".into(), "–".into(), "–".into())
    );
    assert_eq!(time_of_day(Timestamp(1_795_237_212_999_999)), "05:00:12");
    assert_eq!(time_of_day(Timestamp(i64::MIN)).len(), 8);
}
