"""The names by which the published program calls samplers and step schedules, and what they are called here."""

PUBLISHED_SAMPLERS = {
    "DPM++ 2M": "dpm++2m",
    "DPM++ SDE": "dpm++sde",
    "DPM++ 2M SDE": "dpm++2m-sde",
    "DPM++ 2M SDE Heun": "dpm++2m-sde-heun",
    "DPM++ 2S a": "dpm++2s-a",
    "DPM++ 3M SDE": "dpm++3m-sde",
    "Euler a": "euler-a",
    "Euler": "euler",
    "LMS": "lms",
    "Heun": "heun",
    "DPM2": "dpm2",
    "DPM2 a": "dpm2-a",
    "DPM fast": "dpm-fast",
    "DPM adaptive": "dpm-adaptive",
    "diffuser_ddim": "ddim",
    "diffuser_dpm": "diffusers-dpm",
    "diffuser_dpm_sde": "diffusers-dpm-sde",
    "diffuser_pndm": "diffusers-pndm",
    "diffuser_lms": "diffusers-lms",
}
PUBLISHED_STEPS = {
    "Automatic": "automatic",
    "Uniform": "uniform",
    "Karras": "karras",
    "Exponential": "exponential",
    "Polyexponential": "polyexponential",
    "SGM Uniform": "sgm-uniform",
}
