//! The order in which tables are loaded: referenced tables first.

/// Sorts `0..count` so that each item follows the items that it `needs`, and otherwise keeps its position. Items on a cycle
/// keep their order.
pub fn order(count: usize, needs: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    components(count, needs).concat()
}

/// Returns the cycles of `0..count`, each after those that it `needs`; an item that is on no cycle is alone.
pub fn components(count: usize, needs: impl Fn(usize) -> Vec<usize>) -> Vec<Vec<usize>> {
    let reached: Vec<Vec<bool>> = (0..count).map(|item| reached(count, item, &needs)).collect();
    let mut done = vec![false; count];
    let mut components: Vec<Vec<usize>> = Vec::new();
    while let Some(first) = (0..count).find(|item| {
        let is_met = |need: usize| done[need] || reached[need][*item];
        !done[*item] && (0..count).all(|need| !reached[*item][need] || is_met(need))
    }) {
        let others = (0..count).filter(|other| *other == first || reached[first][*other] && reached[*other][first]);
        let component: Vec<usize> = others.collect();
        for item in &component {
            done[*item] = true;
        }
        components.push(component);
    }
    components
}

/// Sorts a cycle so that each item follows the items of the cycle that it `needs`. Returns the item that cannot, if there is one.
pub fn within(cycle: &[usize], needs: impl Fn(usize) -> Vec<usize>) -> Result<Vec<usize>, usize> {
    let mut done: Vec<usize> = Vec::with_capacity(cycle.len());
    while done.len() < cycle.len() {
        let left = || cycle.iter().copied().filter(|item| !done.contains(item));
        let is_met = |item: usize, need: &usize| *need == item || done.contains(need) || !cycle.contains(need);
        let ready = left().find(|item| needs(*item).iter().all(|need| is_met(*item, need)));
        match (ready, left().next()) {
            (Some(next), _) => done.push(next),
            (None, Some(first)) => return Err(first),
            (None, None) => break,
        }
    }
    Ok(done)
}

/// Returns which items an item needs, directly or not.
fn reached(count: usize, item: usize, needs: &impl Fn(usize) -> Vec<usize>) -> Vec<bool> {
    let mut reached = vec![false; count];
    let mut waiting = needs(item);
    while let Some(next) = waiting.pop() {
        if !std::mem::replace(&mut reached[next], true) {
            waiting.extend(needs(next));
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_self_references_do_not_matter() {
        let needs = |table: usize| [vec![1, 2], vec![2], vec![2], vec![]][table].clone();
        assert_eq!(order(4, needs), [2, 1, 0, 3]);
    }

    #[test]
    fn a_cycle_ends() {
        assert_eq!(order(2, |table| vec![1 - table]), [0, 1]);
    }

    #[test]
    fn a_cycle_comes_after_what_it_needs_and_before_what_needs_it() {
        // 0 needs the cycle of 1 and 3, which needs 2.
        let needs = |table: usize| [vec![3], vec![3], vec![], vec![1, 2]][table].clone();
        assert_eq!(components(4, needs), [vec![2], vec![1, 3], vec![0]]);
    }

    #[test]
    fn a_cycle_is_ordered_by_what_cannot_wait() {
        let needs = |table: usize| [vec![], vec![2], vec![0]][table].clone();
        assert_eq!(within(&[0, 1, 2], needs), Ok(vec![0, 2, 1]));
        assert_eq!(within(&[0, 1], |table| vec![1 - table]), Err(0));
    }
}
