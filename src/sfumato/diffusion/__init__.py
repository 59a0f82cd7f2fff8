"""One diffusion core: schedules make sigmas, preconditioners make denoisers, guides wrap them, samplers walk them."""
