"""Which classes of which sets a COCO fold's training leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest

from iir_sdk.data.exclusion import HOLDS, PARTS_OF, SYNONYMS, without_classes
from iir_sdk.data.folder import COCO_CLASSES, PictureSet, coco_fold

LISTED = Path(__file__).parents[1] / "benchmarks/evidence/exclusions/classes.tsv"


def sets_of(names):
    """Sets of classes named ``set/class``, each with one mask."""
    by_set = {}
    for set_name, name in (n.split("/") for n in names):
        by_set.setdefault(set_name, {})[name] = ("a",)
    return [PictureSet(name, Path(name), {"a": Path("a.jpg")}, classes) for name, classes in by_set.items()]


def left_out(names, fold):
    left = {f"{s.name}/{c}" for s in without_classes(sets_of(names), coco_fold(fold)) for c in s.classes}
    return set(names) - left


HELD_OUT = {
    0: """coco_person/person human290/person football_match/referee football_match/spectators football_match/team1
        football_match/team2 face_parts/eyebrow face_parts/nose figaro_hair/hair feet/foot baby_head/baby_head pug/pug
        mixed12/dog aircraft_dent/aircraft_dent wild_animals7/elephant kitchen_appliances/microwave cutlery/spoon
        kitchen_appliances/refrigerator kitchen_appliances/spatula food_indonesia/bread_slice campus_indoor/chair""",
    1: """mug/mug kitchen_appliances/coffee_mug kitchen_appliances/skillet flood_taxi/minibus_taxi street_gulf/vehicle
        coco_extra/car campus_indoor/chair road_marking_sign/traffic_light mandarin/mandarin_orange
        wild_animals7/bear weizmann_horse/horse bicycle_head_tube/bicycle_head_tube ac_remote/ac_remote""",
    2: """street_gulf/vehicle flood_taxi/minibus_taxi car_panel/rear_door car_damage/dent train_vehicle/train_windshield
        car_damage_multi/broken_headlamp cutlery/fork kitchen_appliances/toaster arabidopsis/arabidopsis_plant""",
    3: """stop_yield_sign/stop_sign road_sign_thermal/stop_sign fire_truck/fire_truck coco_extra/car weapon/knife
        street_gulf/vehicle bottle_material/plastic_bottle waste_bottle/bottle wild_animals7/tiger
        car_panel/tailgate""",
}
UNRELATED = """
    football_match/field football_match/goal_bar ppe/hard_hat hat/hat tshirt/tshirt foot_ulcer/ulcer
    teeth_panoramic/teeth road_sign_thermal/school_sign stop_yield_sign/yield_sign stop_button/emergency_stop_button
    license_plate/license_plate wild_animals7/otter wild_animals7/turtle rice_root/rice_root solar_panel/bird-drop
    oil_palm_fruit/oil_palm_fruit food_indonesia/rice food_indonesia/tofu_fried kitchen_appliances/dishwasher
    campus_indoor/door strawberry_growlight/strawberry weapon/gun workpiece_parts/plate warehouse/transport
"""


@pytest.mark.parametrize("fold", range(4))
def test_a_folds_classes_are_left_out_under_the_names_of_other_sets_and_unrelated_ones_stay(fold):
    held_out = HELD_OUT[fold].split()
    assert left_out([*held_out, *UNRELATED.split()], fold) == set(held_out)


def test_what_masks_show_counts_in_the_folds_of_just_those_classes():
    names = ["street_gulf/vehicle", "bicycle_head_tube/bicycle_head_tube", "football_match/team1", "car_panel/fender"]
    folds = {name: [fold for fold in range(4) if name in left_out(names, fold)] for name in names}
    assert list(folds.values()) == [[1, 2, 3], [1], [0], [2, 3]]


def test_all_that_is_said_to_be_shown_is_a_coco_class():
    named = {c for shown in (*HOLDS.values(), *PARTS_OF.values()) for c in shown} | set(SYNONYMS)
    assert named <= set(COCO_CLASSES)


def test_the_listed_exclusions_are_those_that_training_makes():
    rows = [line.split("\t") for line in LISTED.read_text().splitlines()[1:]]
    listed = {f"{row[0]}/{row[1]}": row[3:] for row in rows}
    for fold in range(4):
        expected = {name for name, folds in listed.items() if folds and str(fold) in folds[0].split()}
        assert left_out(list(listed), fold) == expected
