"""Keeps novel classes out of training, also under other sets' names for them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from iir_sdk.data.dataset import CUTOUT_SET
from iir_sdk.data.folder import PictureSet
from iir_sdk.errors import DatasetError

_NAMES = """
    person: people man men woman women boy girl child baby adult family face bust busts officer worker sleuth
        guardsman dancer bride prince princess father_christmas mother_christmas santa superhero supervillain
        runner surfer snowboarder skier swimmer golfer bicyclist pedestrian pedestrians weight_lifter wrestlers
        fencer juggling handball water_polo mage fairy vampire merperson elf genie zombie ninja hand hands fist
        finger fingers palm palms leg foot ear nose mouth tongue eye eyes lip biceps clown handshake shrug
        selfie troll imp ogre goblin dolls fireman spacewalk paratrooper grannysmith skin hair massage haircut
        kiss holding_hands breast_feeding index wedding statue children couple bath mens womens thumbs horns ped head
        horse_racing sleeping_accommodation laughing restroom toilets xing_school put_litter
        do_not_litter customs passport_control place_of_worship eyebrow eyebrows referee spectators
    bicycle: bicycles bicyclist bike cycle tricycle
    car: cars automobile auto taxi sedan sportscar indycar ambulance
    motorcycle: motorbike motor_scooter scooter auto_rickshaw
    airplane: airplanes aeroplane plane planes raptor aircraft
    bus: buses minibus trolleybus
    train: trains railway locomotive tram tramway metro monorail light_rail railroad station
    truck: firetruck garbagetruck lorry fire_engine pickup dumper recreational_vehicle
    boat: boats ship rowboat speedboat sailboat walnutboat canoe ferry
    traffic_light: traffic_lights stoplight
    stop_sign: stop octagonal_sign
    bird: birds bluebird chicken chick rooster hen turkey duck rubberduck goose penguin eagle owl parrot swan
        flamingo peacock dove dodo
    cat: cats kitten blackcat lion tiger leopard
    dog: dogs puppy poodle pug fox wolf
    horse: horses unicorn equines donkey
    sheep: lamb ram goat mountaingoat
    cow: cows calf bull ox bovines bison buffalo zebu yak
    elephant: elephants mammoth
    bear: bears panda teddy
    backpack: satchel rucksack bag bags
    umbrella: umbrellas parasol
    handbag: handbags bag bags purse pouch
    tie: necktie tuxedo business_suit
    suitcase: luggage briefcase baggage bag bags customs
    frisbee: flying_disc
    skis: ski skier
    snowboard: snowboarder
    sports_ball: ball balls football rugby basketball baseball softball volleyball cricketball soccer billiards
        bowling
    baseball_bat: bat
    baseball_glove: glove gloves mitten mitt
    surfboard: surfer
    tennis_racket: racket racquet
    bottle: bottles flask sake
    wine_glass: glass glasses cocktail tropical_drink
    cup: cups mug mugs teacup goblet beverage tumbler bubble_tea mate_drink
    knife: dagger sword swords hocho
    spoon: ladle spatula
    bowl: bowls rice curry salad pot_of_food oden
    apple: apples
    sandwich: bread_slice hamburger bagel stuffed_flatbread burrito
    orange: oranges tangerine mandarine mandarin
    donut: doughnut donuts
    cake: cupcake shortcake fish_cake moon_cake pancakes pudding
    chair: chairs seat wheelchair
    couch: sofa
    potted_plant: seedling cactus pine_decoration
    bed: sleeping_accommodation
    dining_table: table
    toilet: toilets water_closet restroom
    tv: television desktop_computer
    laptop: computer pc
    mouse: trackball
    remote: control_knobs
    cell_phone: phone phones telephone mobile vibration_mode antenna_with_bars selfie pager
    oven: stove
    sink: basin
    refrigerator: fridge
    book: books notebook ledger
    clock: stopwatch watch
    vase: amphora urn pot jar
    teddy_bear: teddy edward_bear dolls
"""


def _by_class(names: str) -> dict[str, tuple[str, ...]]:
    entries = re.sub(r"\n {8}", " ", names).strip().splitlines()
    return {name.strip(): tuple(others.split()) for name, others in (entry.split(":") for entry in entries)}


SYNONYMS = _by_class(_NAMES)
"""Other names for things close to a COCO class, read off the names of sets and cut-outs: for each of the four folds.

Generous: a name that only may show the class is left out too.
"""

_TELLING = re.compile(r"(?:^|[^0-9a-z])[a-z]{2}", re.IGNORECASE)
"""What a name has that is more than numbers, as emoji's code points are: a word, which no digit begins."""

HOLDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("arabidopsis", "arabidopsis_plant"): ("potted_plant",),
    ("bicycle_head_tube", "bicycle_head_tube"): ("bicycle",),
    ("campus_indoor", "chair"): ("chair", "bench"),
    ("camvid", "car"): ("truck", "bus", "car"),
    ("camvid", "bicyclist"): ("motorcycle", "bicycle", "person"),
    ("camvid", "pedestrian"): ("person",),
    ("camvid", "sign"): ("traffic_light", "stop_sign"),
    ("coco_extra", "car"): ("truck", "bus", "car"),
    ("facade", "car"): ("truck", "bus", "car"),
    ("facade", "traffic-infrastructure"): ("traffic_light", "stop_sign"),
    ("flood_taxi", "minibus_taxi"): ("truck", "bus", "car"),
    ("food_indonesia", "rice"): (),
    ("football_match", "team1"): ("person",),
    ("football_match", "team2"): ("person",),
    ("kitchen_appliances", "skillet"): ("bowl", "pizza"),
    ("oil_palm_fruit", "oil_palm_fruit"): (),
    ("rice_root", "rice_root"): (),
    ("solar_panel", "bird-drop"): (),
    ("stop_button", "emergency_stop_button"): (),
    ("street_gulf", "vehicle"): ("motorcycle", "truck", "bus", "car"),
}
"""(set, class) whose masks take in other COCO classes than its name says; none of them where there is nothing."""

PARTS_OF: dict[str, tuple[str, ...]] = {
    "car_damage": ("car", "truck"),
    "car_damage_multi": ("car", "truck"),
    "car_dent_scratch": ("car", "truck"),
    "car_front_parts": ("car", "truck"),
    "car_panel": ("car", "truck"),
    "car_wreck_damage": ("car", "truck"),
}
"""Sets all of whose classes are parts of COCO classes, which go with the whole, as parts of faces do."""


def names_class(name: str, classes: Iterable[str]) -> bool:
    """Whether a class or file name holds one of ``classes``, or a synonym, as whole words."""
    words = _words(name)
    return any(_holds(words, _words(alias)) for c in classes for alias in (c, *SYNONYMS.get(c, ())))


def without_classes(sets: Sequence[PictureSet], novel: Sequence[str]) -> list[PictureSet]:
    """The sets without masks of the novel classes; pictures that show them stay (the unfiltered convention)."""
    kept = [s.without(_excluder(s.name, novel)) for s in sets]
    return [s for s in kept if s.classes]


def without_sets(sets: Sequence[PictureSet], names: Sequence[str]) -> list[PictureSet]:
    """The sets but for those named, perhaps with :data:`CUTOUT_SET`; a DatasetError for a name that is no set's."""
    known = sorted({s.name for s in sets} | {CUTOUT_SET})
    for name in names:
        if name not in known:
            raise DatasetError(f"cannot leave out {name!r}: there are {', '.join(known)}; name some of these.")
    return [s for s in sets if s.name not in names]


def only_named(sets: Sequence[PictureSet], names: Sequence[str]) -> list[PictureSet]:
    """The sets named, whole or, by ``set/stem``, with these pictures alone; all where there are no names.

    Names of cut-outs may be among them; what is no set's, or no picture's, is a DatasetError.
    """
    if not names:
        return list(sets)
    known = {s.name: s for s in sets}
    for set_name, _, stem in (name.partition("/") for name in names):
        if set_name != CUTOUT_SET and (set_name not in known or (stem and stem not in known[set_name].images)):
            raise DatasetError(
                f"cannot use {set_name}{stem and '/'}{stem} alone: there are {', '.join(sorted(known))}; name some of "
                "these, or pictures of them as set/stem."
            )
    return among(sets, names)


def among(sets: Sequence[PictureSet], names: Sequence[str]) -> list[PictureSet]:
    """As :func:`only_named`, whatever else the names name."""
    whole, stems = set(names), defaultdict(set)
    for set_name, _, stem in (name.partition("/") for name in names):
        stems[set_name].add(stem)
    chosen = [s if s.name in whole else s.of_pictures(stems[s.name]) for s in sets if s.name in stems]
    return [s for s in chosen if s.classes]


def cutouts_among(files: Sequence[Path], names: Sequence[str]) -> list[Path]:
    """The cut-outs whose folder is named, as ``cutouts/folder``; ``cutouts`` names all, as no names do."""
    if not names or CUTOUT_SET in names:
        return list(files)
    return [f for f in files if f"{CUTOUT_SET}/{f.parent.name}" in names]


def cutouts_without(files: Sequence[Path], novel: Sequence[str]) -> list[Path]:
    """The cut-outs whose file name holds none of the novel classes, and says what they show where there are any."""
    return [f for f in files if not novel or (_TELLING.search(f.stem) and not names_class(f.stem, novel))]


def _excluder(set_name: str, novel: Sequence[str]) -> Callable[[str], bool]:
    def excluded(name: str) -> bool:
        shown = HOLDS.get((set_name, name), PARTS_OF.get(set_name))
        return names_class(name, novel) if shown is None else any(c in novel for c in shown)

    return excluded


def _words(name: str) -> list[str]:
    return [w for w in re.split(r"[^a-z]+", name.lower()) if w]


def _holds(words: list[str], part: list[str]) -> bool:
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))
