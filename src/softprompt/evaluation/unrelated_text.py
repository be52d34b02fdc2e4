"""Plain prose that has nothing to do with any task, written for `leakage`, which reads it by default."""

_WRAPPED = """
The old canal runs behind the mill for about two miles before it joins the river. In summer the water is
low and green, and the boats that still use it move so slowly that ducks do not trouble to get out of
their way. People from the town walk there in the evening. Some bring a folding chair and a book, though
few of them read much.

To repair a wooden window, begin by taking out the glass. Warm the putty with a heat gun until it gives
way under a blunt knife, and lift it off in strips. The sash can then be scraped, sanded and primed. A
new coat of paint keeps out the rain for six or seven years, provided that it overlaps the glass by the
width of a coin. Leave it to dry for two days before you close the window again, or it will stick.

Most of what falls to the ground in a forest is eaten within a few years. Beetles open the wood, threads
of fungus follow their tunnels, and mites and springtails grind what is left to crumbs. A thick oak may
last for a century, a birch hardly ten years. What comes out at the end is dark, smells of earth and
holds several times its weight in water.

The committee met on the second Tuesday of each month in a room above the library. There were seven
members, of whom five came regularly. The minutes were read and signed, the treasurer gave his report,
and then they talked about the roof. It had been leaking since the storm in March. Two builders had
looked at it and named prices that differed by a factor of three, and nobody could say which of them had
understood what was wrong.

A good soup needs time more than anything else. Cut the onions small and let them turn soft in butter
without taking colour. Add carrots, a stick of celery, a leaf of bay and enough water to cover everything
by a hand's breadth. Salt it only towards the end, because it will lose water as it simmers. On the
second day it tastes better than on the first.

Clocks in railway stations once showed the time of the town in which they stood. Noon in one place was
ten minutes before noon in another, and a traveller had to set his watch wherever he went. It was the
railways that needed one time for the whole country, and for years many towns kept two clocks, one for
the sun and one for the trains.

She had learned to sail from her uncle, who never explained anything. He would let go of the rope and
look at the sky as though it had nothing to do with him, and she found out by herself how far the boat
would lean. By the end of her second summer she could bring it back to the harbour in the dark, counting
the seconds between the two flashes of the lighthouse. Years afterwards she still counted when she could
not sleep.

A map is a choice of what to leave out. One for walkers shows every stile and spring and no house
numbers; one for drivers shows roads far wider than they are. If a road were drawn to scale on a sheet
that covers a whole county, it would be finer than a hair. So the map maker thickens it, moves the
village a little to the side, and hopes that nobody measures the distance with a ruler.

Iron expands when it is warm. A bridge of a hundred metres is some six centimetres longer on a hot
afternoon in July than on a night in January, and if it were held fast at both ends it would push the
banks apart or bend. That is why one end rests on rollers, and why there is a narrow gap in the surface
of the road, covered by steel fingers that slide past each other. You hear them as you drive across: two
short beats, one for each pair of wheels.
"""

TEXT = "\n\n".join(" ".join(paragraph.split()) for paragraph in _WRAPPED.split("\n\n"))
