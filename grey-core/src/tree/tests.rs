//! The tree by example; `model` holds it against a naive one.

use super::*;

mod model;

fn calls(count: u64) -> CgroupCounters {
    CgroupCounters {
        mmap_calls: count,
        ..CgroupCounters::default()
    }
}

fn total(tree: &Tree, id: u64) -> Option<u64> {
    tree.totals(id).map(|totals| totals.mmap_calls)
}

fn own(tree: &Tree, id: u64) -> Option<u64> {
    tree.own_totals(id).map(|totals| totals.mmap_calls)
}

fn tree(cgroups: &[(u64, &str)]) -> Tree {
    let mut tree = Tree::new();
    for (id, path) in cgroups {
        assert_eq!(tree.insert(*id, path), Inserted::New);
    }
    tree
}

#[test]
fn parents_are_found_by_path() {
    let tree = tree(&[(1, "/"), (2, "/a"), (3, "/a/b"), (4, "/ab")]);
    assert_eq!(tree.ancestors(3).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(tree.children(1).collect::<Vec<_>>(), [2, 4]);
    assert_eq!(tree.children(2).collect::<Vec<_>>(), [3]);
    assert_eq!((tree.parent(1), tree.parent(4)), (None, Some(1)));
    assert_eq!((tree.path(3), tree.id_of("/a/b")), (Some("/a/b"), Some(3)));
    assert_eq!(tree.ids().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!((tree.len(), tree.is_empty()), (4, false));
    assert_eq!(tree.ancestors(9).count(), 0);
    assert_eq!((tree.path(9), tree.id_of("/c")), (None, None));
}

#[test]
fn a_path_is_normal_however_it_is_written() {
    let mut tree = tree(&[(1, "/")]);
    assert_eq!(tree.insert(2, "a//b/"), Inserted::New);
    assert_eq!(tree.path(2), Some("/a/b"));
    assert_eq!(tree.id_of("/a/b/"), Some(2));
    assert_eq!(tree.insert(2, "/a/b"), Inserted::Known);
    assert_eq!(tree.insert(3, ""), Inserted::Ignored);
    assert_eq!(tree.len(), 2);
}

#[test]
fn totals_include_descendants_and_outlive_them() {
    let mut tree = tree(&[(1, "/"), (2, "/a"), (3, "/a/b"), (4, "/c")]);
    assert_eq!(tree.add(3, &calls(5)), Added::Known);
    tree.add(2, &calls(1));
    tree.add(4, &calls(10));
    assert_eq!(total(&tree, 1), Some(16));
    assert_eq!((total(&tree, 2), own(&tree, 2)), (Some(6), Some(1)));
    assert_eq!(tree.remove(3).as_deref(), Some("/a/b"));
    assert_eq!(total(&tree, 3), None);
    assert_eq!(total(&tree, 2), Some(6));
}

#[test]
fn the_last_counters_of_a_removed_cgroup_go_to_those_above() {
    let mut tree = tree(&[(1, "/"), (2, "/a"), (3, "/a/b")]);
    tree.remove(3);
    assert_eq!(tree.add(3, &calls(5)), Added::Gone);
    assert_eq!(total(&tree, 2), Some(5));
    tree.remove(2);
    assert_eq!(tree.add(3, &calls(2)), Added::Gone);
    assert_eq!(total(&tree, 1), Some(7));
}

#[test]
fn counters_that_come_before_the_path_are_applied_with_it() {
    let mut tree = tree(&[(1, "/")]);
    assert_eq!(tree.add(7, &calls(3)), Added::Orphan);
    assert_eq!(tree.add(7, &calls(4)), Added::Orphan);
    assert_eq!(tree.orphans().collect::<Vec<_>>(), [7]);
    assert_eq!(tree.insert(7, "/x"), Inserted::New);
    assert_eq!((total(&tree, 7), total(&tree, 1)), (Some(7), Some(7)));
    assert_eq!(tree.orphans().count(), 0);
}

#[test]
fn orphans_are_bounded_and_their_loss_is_counted() {
    let mut tree = tree(&[(1, "/")]);
    let more = 10;
    for id in 0..MAX_ORPHANS as u64 + more {
        tree.add(100 + id, &calls(1));
    }
    assert_eq!(tree.orphans().count(), MAX_ORPHANS);
    assert_eq!(tree.lost(), more);
    tree.insert(100, "/old");
    tree.insert(100 + more, "/kept");
    assert_eq!(
        (total(&tree, 100), total(&tree, 100 + more)),
        (Some(0), Some(1))
    );
}

#[test]
fn a_parent_told_after_its_child_takes_it_over_with_its_totals() {
    let mut tree = tree(&[(1, "/"), (3, "/a/b"), (4, "/a/b/c"), (5, "/ab")]);
    tree.add(4, &calls(5));
    assert_eq!(tree.parent(3), Some(1));
    assert_eq!(tree.insert(2, "/a"), Inserted::New);
    assert_eq!(tree.ancestors(4).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert_eq!(tree.parent(5), Some(1));
    assert_eq!(
        (total(&tree, 2), own(&tree, 2), total(&tree, 1)),
        (Some(5), Some(0), Some(5))
    );
    tree.add(3, &calls(1));
    assert_eq!((total(&tree, 2), total(&tree, 1)), (Some(6), Some(6)));
}

#[test]
fn a_path_made_again_belongs_to_the_new_id_alone() {
    let mut tree = tree(&[(1, "/"), (2, "/a")]);
    tree.add(2, &calls(5));
    assert_eq!(tree.insert(3, "/a"), Inserted::Replaced(2));
    assert_eq!((tree.path(2), tree.path(3)), (None, Some("/a")));
    assert_eq!(tree.id_of("/a"), Some(3));
    assert_eq!((total(&tree, 3), total(&tree, 1)), (Some(0), Some(5)));
    // The old one's removal arrives late and takes nothing away.
    assert_eq!(tree.remove(2), None);
    assert_eq!(tree.path(3), Some("/a"));
    // So does its making.
    assert_eq!(tree.insert(2, "/a"), Inserted::Stale);
    assert_eq!(tree.id_of("/a"), Some(3));
}

#[test]
fn removed_before_made_stays_removed() {
    let mut tree = tree(&[(1, "/"), (2, "/a")]);
    tree.add(3, &calls(4));
    assert_eq!(tree.remove(3), None);
    assert!(tree.is_gone(3));
    assert_eq!(tree.insert(3, "/a/b"), Inserted::Stale);
    assert_eq!(tree.path(3), None);
    // What it counted is not lost: the late record told where it had been.
    assert_eq!((total(&tree, 2), total(&tree, 1)), (Some(4), Some(4)));
    assert_eq!(tree.remove(3), None);
    assert_eq!(tree.rename(3, "/x"), Inserted::Stale);
    assert_eq!(tree.len(), 2);
}

#[test]
fn an_old_record_does_not_take_a_path_from_a_newer_id() {
    let mut tree = tree(&[(1, "/"), (9, "/a")]);
    assert_eq!(tree.insert(5, "/a"), Inserted::Stale);
    assert_eq!((tree.id_of("/a"), tree.path(5)), (Some(9), None));
    assert!(tree.is_gone(5));
}

#[test]
fn what_was_seen_on_disk_wins() {
    let mut tree = tree(&[(1, "/"), (9, "/a")]);
    assert_eq!(tree.confirm(5, "/a"), Inserted::Replaced(9));
    assert_eq!(tree.path(9), None);
    assert_eq!(tree.confirm(9, "/b"), Inserted::New);
    assert_eq!((tree.id_of("/a"), tree.id_of("/b")), (Some(5), Some(9)));
}

#[test]
fn a_rename_moves_the_subtree() {
    let mut tree = tree(&[(1, "/"), (2, "/a"), (3, "/a/b"), (4, "/ab"), (5, "/z")]);
    tree.add(3, &calls(2));
    assert_eq!(tree.rename(2, "/z/y"), Inserted::Moved);
    assert_eq!(tree.path(3), Some("/z/y/b"));
    assert_eq!(tree.ancestors(3).collect::<Vec<_>>(), [3, 2, 5, 1]);
    assert_eq!((tree.id_of("/a"), tree.id_of("/a/b")), (None, None));
    assert_eq!(tree.path(4), Some("/ab"));
    // What was counted elsewhere stays where it was counted.
    assert_eq!((total(&tree, 5), total(&tree, 1)), (Some(0), Some(2)));
}

#[test]
fn a_rename_onto_or_below_itself_leaves_one_id_a_path() {
    let mut onto = tree(&[
        (1, "/"),
        (2, "/a"),
        (3, "/a/x"),
        (4, "/b"),
        (5, "/b/x"),
        (6, "/b/y"),
    ]);
    assert_eq!(onto.rename(2, "/b"), Inserted::Moved);
    assert_eq!((onto.path(4), onto.path(5)), (None, None));
    assert_eq!((onto.path(3), onto.path(6)), (Some("/b/x"), Some("/b/y")));
    assert_eq!(onto.parent(6), Some(2));

    let mut below = tree(&[(1, "/"), (2, "/a"), (3, "/a/b")]);
    assert_eq!(below.rename(2, "/a/b"), Inserted::Moved);
    assert_eq!(
        (below.path(2), below.path(3)),
        (Some("/a/b"), Some("/a/b/b"))
    );
}

#[test]
fn a_rename_of_an_unknown_id_makes_it_known_and_the_root_stays() {
    let mut tree = tree(&[(1, "/"), (2, "/a")]);
    assert_eq!(tree.rename(3, "/c"), Inserted::New);
    assert_eq!(tree.rename(1, "/r"), Inserted::Ignored);
    assert_eq!(tree.rename(2, "/"), Inserted::Ignored);
    assert_eq!(tree.rename(2, ""), Inserted::Ignored);
    assert_eq!((tree.path(1), tree.path(2)), (Some("/"), Some("/a")));
}

#[test]
fn many_cgroups_that_come_and_go_leave_nothing() {
    let mut tree = tree(&[(1, "/")]);
    let rounds = 3 * MAX_GONE as u64;
    for id in 2..2 + rounds {
        tree.insert(id, "/loop");
        tree.add(id, &calls(1));
        tree.remove(id);
    }
    assert_eq!(tree.len(), 1);
    assert_eq!(
        (tree.gone.len(), tree.gone_order.len()),
        (MAX_GONE, MAX_GONE)
    );
    assert_eq!((tree.by_path.len(), tree.orphans.len()), (1, 0));
    assert_eq!(total(&tree, 1), Some(rounds));
}

#[test]
fn a_counter_that_went_backwards_counts_nothing() {
    let last = CgroupCounters {
        mmap_calls: 10,
        mmap_bytes: 100,
        ..CgroupCounters::default()
    };
    let now = CgroupCounters {
        mmap_calls: 13,
        mmap_bytes: 40,
        ..CgroupCounters::default()
    };
    assert_eq!(counter_delta(&now, &last), calls(3));
}
